"""`python -m autoglm`."""

from autoglm.cli import main

main()
