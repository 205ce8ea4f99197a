"""Stands in for a pod or a gateway: takes its address flags and behaves as its mode requires.

Stands in for a gateway as well: `/admin/endpoints` lists all endpoints as ready, and without any
`/health/ready` is 503.
The mode is the first argument that names one: ready (responds to `/health/ready`), never (runs, but
never ready), broken (a diagnosis and exit code 66), stubborn (ready, ignores SIGTERM), family
(ready, leaves a child behind, whose pid it logs). On SIGTERM it logs the endpoints file.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

MODES = ("ready", "never", "broken", "stubborn", "family")
HEAD = (
    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    f"autoglm-process: {os.getpid()}\r\n\r\n"
)


def flag(name: str) -> str:
    return next(a.partition("=")[2] for a in sys.argv if a.startswith(f"--{name}="))


def on_term(number: int, frame: object) -> None:
    endpoints = pathlib.Path(os.environ.get("ENDPOINTS_FILE", "/dev/null"))
    print("SIGTERM with", endpoints.read_text().strip(), flush=True)
    sys.exit(0)


def serve() -> None:
    host, port = flag("metrics-address").split(":")
    with socket.create_server((host, int(port))) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                page = connection.recv(65536).split()[1]
                status, body = admin_page() if page == b"/admin/endpoints" else ready_page()
                connection.sendall((HEAD.format(status=status) + json.dumps(body)).encode())


def admin_page() -> tuple[str, object]:
    return "200 OK", {"endpoints": [{"url": url, "state": "ready"} for url in listed()]}


def ready_page() -> tuple[str, object]:
    """A gateway without endpoints listens, and is not ready."""
    is_gateway = any(a.startswith("--endpoints-file=") for a in sys.argv)
    if is_gateway and not listed():
        reasons = ["no model has a ready replica"]
        return "503 Service Unavailable", {"listening": True, "reasons": reasons}
    return "200 OK", {}


def listed() -> list[str]:
    return list(json.loads(pathlib.Path(flag("endpoints-file")).read_text())["endpoints"])


mode = next((m for a in sys.argv for m in MODES if a in (m, f"--echo-fail={m}")), "ready")
print("mode", mode, flush=True)
if mode == "broken":
    pathlib.Path(os.environ["AUTOGLM_TERMINATION_MESSAGE_FILE"]).write_text("no such model: x\n")
    sys.exit(66)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else on_term)
if mode == "never":
    signal.pause()
if mode == "family":
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    print("child", child.pid, flush=True)
serve()
