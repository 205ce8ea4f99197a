"""The pod template, and which templates are rejected."""
