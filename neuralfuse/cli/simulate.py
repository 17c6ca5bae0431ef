"""`neuralfuse simulate`."""


def simulate() -> None:
    """Cycles, memory accesses and energy of a network on an accelerator, per layer."""
