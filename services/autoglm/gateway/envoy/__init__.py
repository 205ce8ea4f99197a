"""Envoy as the data plane: it moves the bytes, the gateway decides. See docs/data-planes.md."""
