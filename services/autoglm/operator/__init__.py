"""The operator: turns AutoGLMDeployments into what runs them on Kubernetes."""
