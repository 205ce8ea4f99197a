from autoglm.v1 import chat_pb2 as _chat_pb2
from autoglm.v1 import generate_pb2 as _generate_pb2
from autoglm.v1 import models_pb2 as _models_pb2
from autoglm.v1 import tasks_pb2 as _tasks_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
