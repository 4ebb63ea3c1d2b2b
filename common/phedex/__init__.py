"""The door to PhEDEx: its data service, typed and distrusted."""
