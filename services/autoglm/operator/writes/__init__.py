"""Writes to the API server: comparison, server-side apply, conflicts, reverted children."""
