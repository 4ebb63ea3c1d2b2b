"""What is looked at, and when? The scheduler's place."""
