"""The system as containers: built, brought up, broken. Run by scripts/containers alone."""
