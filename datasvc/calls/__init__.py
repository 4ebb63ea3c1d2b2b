"""One module a call, or a few that belong together: its options, and what it answers."""
