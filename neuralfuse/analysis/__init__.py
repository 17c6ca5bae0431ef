"""One chip, one layer: transforms fitted to a chip, sensitivity, hardening."""
