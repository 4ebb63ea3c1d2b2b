"""How is a command run, and what follows from how it ended?"""
