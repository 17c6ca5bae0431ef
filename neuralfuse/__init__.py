"""What learns, and the end-to-end study: quantised networks, generators, training, sweeps, reports."""
