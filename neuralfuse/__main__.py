"""`python -m neuralfuse`."""

from neuralfuse.cli import main

main()
