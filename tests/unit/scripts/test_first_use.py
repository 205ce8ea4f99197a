"""What a new user waits for is measured in a clone, and a failed step is not a figure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from scripts import first_use
from scripts.first_use import STEPS, Step, StepFailed, Taken, has_token, measured, shell, table

Events = tuple[bytes, ...]
_TOKEN = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
_ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
_DONE = b"data: [DONE]\n\n"


@contextmanager
def served(status: int, events: Events) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"".join(events))

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "events", "expected"),
    [(200, (_ROLE, _TOKEN, _DONE), True), (200, (_ROLE, _DONE), False), (503, (), False)],
    ids=["token", "no token", "not ready"],
)
def test_a_token_counts_and_nothing_else(status: int, events: Events, expected: bool) -> None:
    with served(status, events) as url:
        assert has_token(url) is expected


def test_a_server_that_does_not_listen_has_no_token() -> None:
    assert not has_token("http://127.0.0.1:9")


def test_a_command_that_fails_ends_the_run_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="exit code 3:\nwhy"):
        shell("echo why; exit 3")(tmp_path, {"PATH": "/usr/bin:/bin"})


def test_steps_run_in_the_clone_and_are_measured_one_by_one(tmp_path: Path) -> None:
    steps = [Step("a", "first", shell("touch a")), Step("b", "second", shell("mv a b"))]

    taken = list(measured(steps, tmp_path, {"PATH": "/usr/bin:/bin"}))

    assert [each.what for each in taken] == ["first", "second"]
    assert (tmp_path / "b").exists()


def test_the_table_has_a_row_a_step() -> None:
    assert table([Taken("make demo", 41.26, 80.0)]).splitlines()[2] == "| make demo | 41.3 | 80.0 |"


def test_what_is_measured_exists() -> None:
    makefile = (first_use.ROOT / "Makefile").read_text()
    for step in STEPS:
        if step.what.startswith("make "):
            assert f"\n{step.what.removeprefix('make ')}:" in makefile


def test_an_unknown_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    main: Callable[[list[str]], int] = first_use.main
    with pytest.raises(SystemExit):
        main(["lunch"])
    assert "no step lunch; there are install, demo" in capsys.readouterr().err
