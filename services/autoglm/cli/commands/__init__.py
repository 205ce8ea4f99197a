"""One module for each command, or for related ones."""
