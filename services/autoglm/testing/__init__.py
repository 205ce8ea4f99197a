"""Published fakes and builders for tests of Open-AutoGLM and of what is built on it."""
