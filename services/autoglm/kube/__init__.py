"""Reads collections of the Kubernetes API for every service that follows them."""
