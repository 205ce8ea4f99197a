import hmac
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from autoglm.gateway.identity.keys import keys_of, new_key
from autoglm.gateway.request.principal import Principal, Role

GOOD = {"id": "3f0c", "sha256": "0" * 64, "tenant": "acme"}


def file_of(*entries: Any) -> bytes:
    return msgspec.json.encode({"keys": entries})


def test_new_key_is_found_again_by_what_the_file_keeps() -> None:
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    key, entry = new_key("acme", "ci", (Role.ADMIN,), ("glm-*",), expires)
    found = keys_of(file_of(entry)).find(key)
    assert found is not None
    assert found.principal == Principal("acme", "ci", frozenset((Role.ADMIN,)), ("glm-*",))
    assert found.expires == expires.timestamp()


def test_file_keeps_nothing_of_the_secret() -> None:
    key, entry = new_key("acme")
    secret = key.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in file_of(entry).decode() and secret not in repr(keys_of(file_of(entry)))


@pytest.mark.parametrize(
    "wrong", ["", "agk_", "agk__", "agk_{id}_", "agk_{id}_x", "{key}x", "x{key}"]
)
def test_what_is_not_the_whole_key_finds_no_tenant(wrong: str) -> None:
    key, entry = new_key("acme")
    assert keys_of(file_of(entry)).find(wrong.format(key=key, id=entry.id)) is None


@pytest.mark.parametrize("known", [True, False])
def test_every_look_costs_one_constant_time_comparison(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, entry = new_key("acme")
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    found = keys_of(file_of(entry)).find(key if known else "agk_unknown_x")
    assert (found is not None) is known
    ((one, other),) = compared
    assert len(one) == len(other) == 32


def test_keys_do_without_roles_models_and_end() -> None:
    (found,) = keys_of(file_of(GOOD)).by_id.values()
    assert found.principal == Principal("acme", "3f0c", frozenset((Role.USER,)), None)
    assert found.expires is None


def test_no_models_is_none_at_all() -> None:
    (found,) = keys_of(file_of(GOOD | {"models": []})).by_id.values()
    assert not found.principal.may_use("glm")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"[]", "keys file is invalid"),
        (file_of({"id": "3f0c", "sha256": "0" * 64}), "tenant"),
        (file_of(GOOD | {"sha256": "0" * 63}), "sha256"),
        (file_of(GOOD | {"role": ["User"]}), "role"),
        (file_of(GOOD | {"roles": ["Root"]}), "roles"),
        (file_of(GOOD | {"tenant": ""}), "tenant of key '3f0c'"),
        (file_of(GOOD | {"tenant": "a\nb"}), "tenant of key '3f0c'"),
        (file_of(GOOD | {"expires": "2030-01-01T00:00:00"}), "expires"),
        (file_of(GOOD, GOOD), "twice"),
        (file_of(GOOD | {"models": None}), "models"),
        (file_of(GOOD | {"models": "glm"}), "models"),
        (file_of(GOOD | {"models": [None]}), "models"),
        (file_of(GOOD | {"roles": None}), "roles"),
        (file_of(GOOD | {"roles": "User"}), "roles"),
        (file_of(GOOD | {"expires": None}), "expires"),
        (file_of(GOOD | {"expires": 0}), "expires"),
        (file_of(GOOD | {"tenant": None}), "tenant"),
        (file_of(GOOD | {"name": None}), "name"),
        (file_of(GOOD | {"sha256": None}), "sha256"),
        (b'{"keys": null}', "keys"),
        (b"null", "keys file is invalid"),
        (b'{"keys": [{"id": "\xff"}]}', "keys file is invalid"),
    ],
)
def test_wrong_files_are_refused_by_what_is_wrong(text: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        keys_of(text)


def test_refusal_of_a_file_quotes_no_digest() -> None:
    secret = "deadbeef" * 8
    text = json.dumps({"keys": [GOOD | {"sha256": secret + "0"}]}).encode()
    with pytest.raises(ValueError) as caught:
        keys_of(text)
    assert secret not in str(caught.value)
