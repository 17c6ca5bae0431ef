"""Transforms fitted to one chip against everything else, on the same chips: `python -m benchmarks.beyond --help`."""
