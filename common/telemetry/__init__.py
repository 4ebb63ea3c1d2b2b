"""What is said about the work: logs without secrets."""
