"""Many pods by one process, for `growth`: the load streams and connections are real, the pods not.

    python -m benchmarks.many_pods COUNT FILE

Serves one fake pod on so many ports, each reporting its load once a second as pods do, and writes
their URLs as an endpoints file of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from autoglm.common import rpc
from autoglm.testing import fake_pod
from autoglm.testing.fake_pod import FakePod


async def serve(count: int, file: Path) -> None:
    fake_pod.LOAD_SECONDS = 1.0
    pod = FakePod()
    server = rpc.server()
    pod.serve_on(server)
    ports = [rpc.bind(server, "127.0.0.1:0") for _ in range(count)]
    await server.start()
    urls = [f"grpc://127.0.0.1:{port}" for port in ports]
    whole = file.with_suffix(".new")
    whole.write_text(json.dumps({"endpoints": urls}))
    whole.rename(file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
