"""vLLM's KV-cache events."""
