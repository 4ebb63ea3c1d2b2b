"""What is configured? One YAML file, the environment, and sane defaults."""
