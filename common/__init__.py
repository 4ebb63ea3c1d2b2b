"""The words and the doors: names, messages, decisions, and the clients of PhEDEx, Rucio and the broker."""
