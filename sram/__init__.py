"""What the silicon does: failure probability, persistent fault maps, faults in words, protections, energy."""
