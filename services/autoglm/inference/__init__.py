"""The pod: an engine behind gRPC and REST. `app.run` is the process, `AutoGLMEngine` the Python way."""
