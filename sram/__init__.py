"""What the silicon does: voltage to failure probability, persistent fault maps, faults in words, protections, energy."""
