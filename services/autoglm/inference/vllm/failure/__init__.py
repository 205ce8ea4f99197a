"""How a vLLM engine ends, and why."""
