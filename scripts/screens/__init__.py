"""Draws the screens of the documentation from real runs: see `page` for how it marks them."""
