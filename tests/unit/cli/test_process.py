"""What only a real process shows: signals, closed pipes, start-up."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from autoglm.testing.fake_server import FakeServer


@contextmanager
def generating(server: FakeServer) -> Iterator[subprocess.Popen[bytes]]:
    with server, heeding_ctrl_c():
        command = [sys.executable, "-m", "autoglm", "generate", "--model", "fake"]
        with subprocess.Popen(
            [*command, "--address", server.address, "Hi"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            yield process


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """As at a terminal; shells have what they start in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_stream_quietly_with_130() -> None:
    server = FakeServer(endless=True)
    with generating(server) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == b"Hello"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == b""
        assert server.cancelled.wait(10)


def test_a_closed_pipe_ends_it_quietly() -> None:
    with generating(FakeServer(text="word " * 50_000)) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.wait(15) == 1
        assert process.stderr.read() == b""
