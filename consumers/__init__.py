"""Make Rucio true. One module a kind of command, each with `handle(command, world) -> Result`."""
