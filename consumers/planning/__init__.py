"""From two readings to a plan."""
