import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DECISION = {
    "model": "glm",
    "policy": "PrefixAffinity",
    "endpoint": "grpc://10.0.0.1:50051",
    "reason": "prefix",
    "why": "holds 3 of 4 blocks of the prompt by its events, at load 0.250, of 2 candidates",
    "prompt_tokens": 280,
    "prompt_blocks": 4,
    "candidates_left": 1,
    "candidates": [
        {
            "endpoint": "grpc://10.0.0.1:50051",
            "score": 1.05,
            "blocks_held": 3,
            "share_in_use": 0.25,
            "in_flight": 1,
            "others": 1,
            "kv_cache_usage": 0.1,
        }
    ],
}


class Gateway(ThreadingHTTPServer):
    """Sends scripted responses and records requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = [{"id": "glm"}, {"id": "glm-adapter", "parent": "glm"}]
        self.error = ""
        self.received: list[tuple[str, dict[str, str], Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self._respond(200, {"data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.received.append((self.path, headers, body))
        error = self.server.error
        self._respond(403 if error else 200, {"error": {"message": error}} if error else DECISION)

    def _respond(self, code: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of this belongs on the screen."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("AUTOGLM_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_text_is_sent_as_a_chat_that_is_only_explained(
    autoglm: Any, gateway: Gateway, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k\n")
    result = autoglm("explain-route", "--api-key-file", str(key), "Hello", "there")
    assert (result.code, result.err) == (0, "")
    assert "glm -> grpc://10.0.0.1:50051" in result.out and "BLOCKS HELD" in result.out
    ((path, headers, body),) = gateway.received
    assert path == "/v1/chat/completions" and headers["x-autoglm-debug"] == "explain"
    assert headers["authorization"] == "Bearer k"
    assert body == {"messages": [{"role": "user", "content": "Hello there"}], "model": "glm"}


@pytest.mark.parametrize("is_flag", [True, False])
def test_key_as_a_flag_warns_that_it_shows(
    autoglm: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, is_flag: bool
) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", "k")
    result = autoglm("explain-route", *(("--api-key", "k") if is_flag else ()), "Hello")
    assert ("--api-key-file" in result.err) is is_flag
    assert gateway.received[0][1]["authorization"] == "Bearer k"


def test_request_of_a_file_is_sent_unchanged(
    autoglm: Any, gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "body.json"
    file.write_text('{"model": "m", "prompt": "Hi"}')
    result = autoglm("explain-route", "--request", str(file), "--output", "json")
    assert json.loads(result.out) == DECISION
    assert gateway.received[0][0] == "/v1/completions" and gateway.received[0][2]["model"] == "m"


def test_error_is_shown(autoglm: Any, gateway: Gateway) -> None:
    gateway.error = "for role Admin"
    result = autoglm("explain-route", "Hi")
    assert result.code == 1 and "for role Admin" in result.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("Hi",), "several models are available"),
        (("--url", "ftp://x", "--model", "m", "Hi"), "not http(s):"),
        (("--url", "http://127.0.0.1:1", "--model", "m", "Hi"), "no response"),
    ],
)
def test_failed_requests_are_reported(
    autoglm: Any, gateway: Gateway, args: tuple[str, ...], message: str
) -> None:
    gateway.models = [{"id": "a"}, {"id": "b"}]
    result = autoglm("explain-route", *args)
    assert result.code in (1, 2) and message in result.err


def test_unknown_model_is_reported_with_how_to_list_models(autoglm: Any, gateway: Gateway) -> None:
    gateway.models = []
    result = autoglm("explain-route", "Hi")
    assert result.code == 1 and gateway.received == []
    assert "no model is available" in result.err and "`autoglm models`" in result.err


@pytest.mark.parametrize("text", ["nonsense", "[]"])
def test_invalid_request_file_is_reported(autoglm: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "body.json"
    file.write_text(text)
    result = autoglm("explain-route", "--request", str(file))
    assert result.code == 1 and str(file) in result.err
