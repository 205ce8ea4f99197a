"""One more process that decides for the Envoy of another. Started by `envoy.processes`.

Its number and the directory of its sockets are arguments; its settings, those of the first process,
come as JSON on standard input, where no process list shows them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autoglm.gateway.app import run
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.settings import GatewaySettings


def main() -> int:
    number, directory = sys.argv[1:]
    settings = GatewaySettings.model_validate_json(sys.stdin.buffer.read())
    return run(settings, Sockets(Path(directory), int(number)))


if __name__ == "__main__":
    sys.exit(main())
