"""The decisions of the sync: pure functions over plain data."""
