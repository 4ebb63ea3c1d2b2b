"""A small model of Rucio for property tests, held to the real server by the contract suite."""
