"""Models of the ModelScope hub, which vLLM loads from a directory."""
