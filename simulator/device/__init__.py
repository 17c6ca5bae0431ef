"""One Device protocol; simulated, remote and RTL chips; characterisation."""
