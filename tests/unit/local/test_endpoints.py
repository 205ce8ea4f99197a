import json
from pathlib import Path

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


def test_resources_are_published_without_defaults(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"

    addresses = Addresses("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
    endpoints.write(file, [addresses], load_documents(MANIFEST, "m"))

    spec = {"model": {}, "routing": {"timeouts": {"chunkSeconds": 3.0}}}
    assert json.loads(file.read_text()) == {
        "endpoints": ["grpc://127.0.0.1:1"],
        "resources": [{"metadata": {"name": "echo"}, "spec": spec}],
    }
