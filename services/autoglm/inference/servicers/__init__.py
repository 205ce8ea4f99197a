"""The gRPC services of a pod."""
