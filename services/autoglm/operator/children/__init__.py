"""Builders of children: from a resource to the exact bodies that are applied. Pure."""
