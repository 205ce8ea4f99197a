"""Runs the commands of the documentation's pages: see `blocks` for how a page marks them."""
