"""`python -m autoglm.cli`."""

from autoglm.cli import main

main()
