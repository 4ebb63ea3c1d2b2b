"""What a person types: the only place that may import everything."""

__version__ = "0.1.0"
