"""`autoglm keys create`: what it prints is what a gateway reads."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from autoglm.gateway.identity.keys import keys_of
from autoglm.gateway.request.principal import Principal, Role
from autoglm.testing.fake_server import FakeServer


def test_entry_in_a_file_is_the_printed_keys(autoglm: Any) -> None:
    result = autoglm(
        *("keys", "create", "--tenant", "acme", "--name", "ci", "--role", "User"),
        *("--role", "Auditor", "--model", "glm-*", "--expires-in-days", "2", "--output", "json"),
    )
    created = json.loads(result.out)
    found = keys_of(json.dumps({"keys": [created["entry"]]}).encode()).find(created["key"])
    assert found is not None and found.expires is not None
    assert found.principal == Principal(
        "acme", "ci", frozenset((Role.USER, Role.AUDITOR)), ("glm-*",)
    )
    assert abs(found.expires - time.time() - 2 * 86400) < 60


def test_text_has_key_and_entry_on_lines_of_their_own(autoglm: Any) -> None:
    first, _, entry = autoglm("keys", "create", "--tenant", "acme").out.splitlines()
    keys = keys_of(f'{{"keys": [{entry}]}}'.encode())
    found = keys.find(first.removeprefix("Key (shown only once): "))
    assert found is not None and found.principal.models is None


@pytest.mark.parametrize(
    "wrong",
    [("--tenant", ""), ("--tenant", "a", "--role", "Root"), ("--tenant", "a", "--name", "x\ny")],
)
def test_wrong_keys_are_not_made(autoglm: Any, wrong: tuple[str, ...]) -> None:
    result = autoglm("keys", "create", *wrong)
    assert (result.code, result.out) == (2, "")


def test_key_file_is_sent_without_its_line_break(autoglm: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush\n")
    with FakeServer() as server:
        autoglm("models", "--address", server.address, "--api-key-file", str(tmp_path / "key"))
    assert server.received[-1].metadata["authorization"] == "Bearer hush"
