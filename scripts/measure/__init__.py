"""Figures of the source tree: size, structure and words. `scripts/figures` prints them."""
