"""Checkpoints on this machine and where they are fetched from."""
