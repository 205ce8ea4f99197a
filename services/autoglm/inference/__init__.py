"""The pod: an engine behind gRPC and REST. `app` is the process, `python_api` the Python way."""
