"""Messages of the `autoglm.v1` API, generated from protos/ by `make stubs`; see protos/README.md.

Service stubs live in `inference_pb2_grpc` and `worker_pb2_grpc`. The Open Inference Protocol's
messages are in `open_inference_pb2` and deliberately not imported here: other packages register the
same names in protobuf's one pool, and a client must be able to use both.
"""

# Holds no message, but reflection finds the service in it.
from autoglm.v1 import inference_pb2 as inference_pb2
from autoglm.v1.chat_pb2 import *
from autoglm.v1.generate_pb2 import *
from autoglm.v1.models_pb2 import *
from autoglm.v1.tasks_pb2 import *
from autoglm.v1.worker_pb2 import *
