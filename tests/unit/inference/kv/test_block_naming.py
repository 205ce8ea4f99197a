import json
from typing import Any

import pytest

from autoglm import v1
from autoglm.common.rpc import PREFIX_SALT, Rpc, current_rpc
from autoglm.inference.engine import Message, Scope
from autoglm.inference.kv import block_naming
from autoglm.inference.kv.block_naming import NamedHttp, Naming
from autoglm.validation import of_generate

SALT = "00000000000000ff"
TEXT = "word " * 100
ASK = of_generate(v1.GenerateRequest(model="m", text=TEXT))


def naming_of(salt: str) -> Naming | None:
    current_rpc.set(Rpc(prefix_salt=salt))
    block_naming.name(ASK)
    return block_naming.take()


def test_a_call_is_named_by_the_gateways_salt_and_once() -> None:
    naming = naming_of(SALT)
    assert naming is not None
    assert (naming.prefix, naming.salt) == (ASK.prefix, 255)
    assert block_naming.take() is None


@pytest.mark.parametrize("salt", ["", "ff", "zz00000000000000", SALT + "0"])
def test_calls_without_a_good_salt_have_no_names(salt: str) -> None:
    assert naming_of(salt) is None


class App:
    """Notes names and body of each request."""

    def __init__(self) -> None:
        self.naming: Naming | None = None
        self.body = b""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.naming = block_naming.take()
        self.body = (await receive())["body"]


async def post(body: bytes, *headers: tuple[bytes, bytes], path: str = "/v1/completions") -> App:
    app = App()
    length = (b"content-length", str(len(body)).encode())
    scope = {"type": "http", "method": "POST", "path": path, "headers": [length, *headers]}
    pieces = [
        {"type": "http.request", "body": body[:10], "more_body": True},
        {"type": "http.request", "body": body[10:], "more_body": False},
    ]

    async def receive() -> Message:
        return pieces.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("the middleware answers nothing")

    await NamedHttp(app, most_bytes=200_000)(scope, receive, send)
    return app


WITH_SALT = (PREFIX_SALT.encode(), SALT.encode())


@pytest.mark.parametrize("words", [100, 30_000])
async def test_rest_requests_are_named_as_the_gateway_does(words: int) -> None:
    text = "word " * words
    body = json.dumps({"model": "m", "prompt": text}).encode()
    app = await post(body, WITH_SALT)
    assert app.naming is not None
    wanted = of_generate(v1.GenerateRequest(model="m", text=text)).prefix
    assert app.naming.prefix == wanted
    assert app.body == body


@pytest.mark.parametrize("body", [b"{", b'{"model": "m", "prompt": 7}', b"\xff" * 500])
async def test_a_body_that_cannot_be_read_is_the_apps_business(body: bytes) -> None:
    app = await post(body, WITH_SALT)
    assert app.naming is None
    assert app.body == body


async def test_without_a_salt_bodies_are_not_read() -> None:
    body = json.dumps({"model": "m", "prompt": TEXT}).encode()
    app = await post(body)
    assert app.naming is None
    assert app.body == body[:10]


async def test_bodies_over_the_bound_are_not_read() -> None:
    app = await post(json.dumps({"prompt": "x" * 200_000}).encode(), WITH_SALT)
    assert len(app.body) == 10
