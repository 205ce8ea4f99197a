"""Writes to the API server: what differs, server-side apply, conflicts, limits."""
