"""Chips with a network in them: the weight memory, what reads wrong, what an inference costs."""
