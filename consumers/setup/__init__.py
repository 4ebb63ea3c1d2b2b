"""What should RSEs, their catalogues and their distances be? Decisions over what PhEDEx says and Rucio has."""
