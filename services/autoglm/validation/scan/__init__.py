"""Reads bodies piece by piece, within bounds, before any object is built."""
