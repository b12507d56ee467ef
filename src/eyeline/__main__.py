"""`python -m eyeline`."""

from eyeline.cli import main

main()
