"""A PhEDEx data service over one SQLite file: the read calls, answered as the real service answered them."""
