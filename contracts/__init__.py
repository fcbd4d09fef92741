"""What every stage agrees on: records, labels, errors. Imports the standard library and numpy only."""

__version__ = "0.1.0"
