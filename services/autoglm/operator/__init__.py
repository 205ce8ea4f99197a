"""The operator: reconciles AutoGLMDeployments with the Kubernetes objects that serve them."""
