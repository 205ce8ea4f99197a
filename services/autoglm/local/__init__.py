"""Runs AutoGLMDeployments as local processes, for `autoglm up`."""
