"""The endpoint picker of the Gateway API Inference Extension."""
