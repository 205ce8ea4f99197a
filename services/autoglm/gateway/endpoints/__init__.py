"""Endpoints: discovery, models served, load and state."""
