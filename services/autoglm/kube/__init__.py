"""A Kubernetes client: transport, verbs, reflectors, caches and leader election."""
