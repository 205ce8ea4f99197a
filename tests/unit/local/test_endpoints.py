import json

from autoglm.api.documents import load_documents
from autoglm.local import endpoints
from autoglm.local.planning import Addresses

MANIFEST = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: echo}
spec:
  model: {}
  engine: {type: echo}
  routing: {timeouts: {chunkSeconds: 3}}
"""


def test_resources_are_published_without_defaults_and_with_their_status() -> None:
    addresses = Addresses("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
    status = {"phase": "Ready"}
    text = endpoints.listing([addresses], load_documents(MANIFEST, "m"), {"echo": status})

    metadata = {"name": "echo", "namespace": "default"}
    spec = {"model": {}, "routing": {"timeouts": {"chunkSeconds": 3.0}}}
    assert json.loads(text) == {
        "endpoints": ["grpc://127.0.0.1:1"],
        "resources": [{"metadata": metadata, "spec": spec, "status": status}],
    }
