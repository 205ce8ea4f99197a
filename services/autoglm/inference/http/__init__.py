"""The HTTP port of a pod."""
