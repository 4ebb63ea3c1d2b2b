"""The door to Rucio: bulk calls, counted requests, errors sorted."""
