"""Which installation reconciles a resource, and which resource has a model name."""
