"""Open-AutoGLM."""
