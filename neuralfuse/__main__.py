"""`python -m neuralfuse`."""

from neuralfuse.cli import main

if __name__ == "__main__":
    main()
