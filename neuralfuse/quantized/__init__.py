"""Networks in stored words: rounding, faults in words, integer inference, programs for a device."""
