import io
import json
import sys
from typing import Any

import pytest

from autoglm import v1
from autoglm.cli.commands.requests import models_table
from autoglm.common import errors
from autoglm.testing.fake_server import FakeServer


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_chat_prints_the_response(autoglm: Any, server: FakeServer) -> None:
    result = autoglm(
        *("chat", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "9"),
        *("--stop", "x", "Who", "are you?"),
    )
    assert (result.code, result.out, result.err) == (0, "Hello there.\n", "")
    request: Any = server.received[-1].request
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be brief."),
        ("user", "Who are you?"),
    ]
    params = request.sampling_params
    assert (request.model, params.temperature, params.max_tokens) == ("fake", 0, 9)
    assert (list(params.stop), params.HasField("top_p")) == (["x"], False)


def test_chat_reads_standard_input_and_writes_json(
    autoglm: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, "Hi\n")
    response = json.loads(autoglm("chat", "--output", "json").out)
    assert response["choices"][0]["message"]["content"] == server.text
    request: Any = server.received[-1].request
    assert request.messages[0].content == "Hi"


def test_a_terminal_gets_a_conversation(
    autoglm: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = Terminal("Hi\n\nAgain\nfails\n/reset\nNew\n/exit\n")
    monkeypatch.setattr(sys, "stdin", typed)
    lines = iter(typed.getvalue().splitlines())

    def next_line(prompt: str) -> str:
        line = next(lines)
        if line == "fails":
            server.failures.append(errors.InvalidRequest("bad"))
        return line

    monkeypatch.setattr("builtins.input", next_line)
    result = autoglm("chat", "--model", "fake")
    assert result.code == 0
    assert result.out.count("Hello there.\n") == 3
    assert result.err == "INVALID_REQUEST: bad\n"
    sent = [[m.content for m in s.request.messages] for s in server.received]  # type: ignore[attr-defined]  # all are ChatRequests
    assert sent == [
        ["Hi"],
        ["Hi", "Hello there.", "Again"],
        ["Hi", "Hello there.", "Again", "Hello there.", "fails"],
        ["New"],
    ]


def test_generate_prints_text_or_json(autoglm: Any, server: FakeServer) -> None:
    assert autoglm("generate", "Once", "--seed", "1").out == "Hello there.\n"
    document = json.loads(autoglm("generate", "Once", "--output", "json").out)
    assert document["completions"][0]["text"] == server.text


def test_predict_prints_labels_with_scores(autoglm: Any, server: FakeServer) -> None:
    labelled = autoglm("predict", "--label", "good", "--label", "bad", "I like it")
    assert labelled.out == "LABEL  SCORE\ngood   0.5000\nbad    0.5000\n"
    assert autoglm("predict", "I like it").out == "Hello there.\n"


def test_models_as_table_and_as_json(autoglm: Any, server: FakeServer) -> None:
    assert autoglm("models").out == (
        "NAME  TASKS          CONTEXT  ENGINE  READY\nfake  generate,chat  2048     fake    1\n"
    )
    (model,) = json.loads(autoglm("models", "--output", "json").out)
    assert model["name"] == "fake" and model["max_model_len"] == 2048


def test_aliases_are_listed_where_a_model_has_some() -> None:
    plain, other = v1.Model(name="a", tasks=["chat"]), v1.Model(name="b", aliases=["x", "y"])
    header, rows = models_table([plain, other])
    assert header[:2] == ["NAME", "ALIASES"]
    assert [row[:2] for row in rows] == [("a", "-"), ("b", "x,y")]
    assert models_table([plain])[0] == ["NAME", "TASKS", "CONTEXT", "ENGINE", "READY"]


def test_version_as_text_and_as_json(autoglm: Any) -> None:
    assert autoglm("version").out.startswith("autoglm ")
    assert set(json.loads(autoglm("version", "--output", "json").out)) >= {"autoglm", "python"}


def test_the_server_saying_no_exits_1_with_the_reason(autoglm: Any, server: FakeServer) -> None:
    server.failures = [errors.InvalidRequest("top_p is over 1", field="sampling_params.top_p")]
    result = autoglm("chat", "--model", "fake", "Hi")
    assert (result.code, result.err) == (1, "INVALID_REQUEST: top_p is over 1\n")


def test_missing_server_exits_1(autoglm: Any) -> None:
    result = autoglm("models", "--address", "127.0.0.1:1")
    assert result.code == 1
    assert result.err.startswith("NO_READY_ENDPOINT: ")


def test_missing_text_or_model_exits_2(
    autoglm: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, "")
    assert autoglm("generate").code == 2
    missing = autoglm("models", "--tls-ca-file", "/nowhere.pem")
    assert missing.code == 2 and "/nowhere.pem" in missing.err


def test_no_model_being_served_exits_1(autoglm: Any, server: FakeServer) -> None:
    server.model = ""
    result = autoglm("chat", "Hi")
    assert (result.code, result.out) == (1, "")
    assert "no model is available" in result.err


def test_an_interrupt_is_quiet(
    autoglm: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoglm.cli.commands.requests.print_table", interrupt)
    result = autoglm("models")
    assert (result.code, result.out, result.err.strip()) == (130, "", "")
