"""Envoy's configuration."""
