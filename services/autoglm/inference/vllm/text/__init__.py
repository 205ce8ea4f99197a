"""Completions and labels on vLLM."""
