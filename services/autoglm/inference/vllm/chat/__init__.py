"""Conversations on vLLM."""
