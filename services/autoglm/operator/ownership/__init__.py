"""Ownership: of resources by an installation, and of model names by a resource."""
