"""What travels over the broker: commands, events, and how they are written down."""
