"""Base networks."""
