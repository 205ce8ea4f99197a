"""Sends a request to an endpoint, and to another one where the first fails."""
