"""The endpoint picker's protocol, message by message: the test is the proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from autoglm import v1
from autoglm.gateway.app import AddressInUse, Gateway
from autoglm.gateway.envoy import ext_proc_pb2 as ext_proc
from autoglm.gateway.envoy.ext_proc_pb2_grpc import ExternalProcessorStub
from autoglm.testing.fake_pod import FakePod

pytestmark = [pytest.mark.plane("embedded", "the picker stands beside it"), pytest.mark.timeout(30)]
DESTINATION = "x-gateway-destination-endpoint"
MODE = ext_proc.ProcessingMode
DUPLEX = ext_proc.ProtocolConfiguration(
    request_body_mode=MODE.FULL_DUPLEX_STREAMED, response_body_mode=MODE.FULL_DUPLEX_STREAMED
)
GENERATE = {
    ":method": "POST",
    ":path": "/autoglm.v1.Inference/Generate",
    "content-type": "application/grpc",
    "te": "trailers",
}
CHAT = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
HELLO = b'{"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}'


def headers(values: dict[str, str], *, is_last: bool = False) -> ext_proc.HttpHeaders:
    pairs = [ext_proc.HeaderValue(key=k, raw_value=v.encode()) for k, v in values.items()]
    return ext_proc.HttpHeaders(headers=ext_proc.HeaderMap(headers=pairs), end_of_stream=is_last)


def body(data: bytes, *, is_last: bool = False) -> ext_proc.HttpBody:
    return ext_proc.HttpBody(body=data, end_of_stream=is_last)


def trailers(values: dict[str, str]) -> ext_proc.HttpTrailers:
    return ext_proc.HttpTrailers(trailers=headers(values).headers)


def framed(text: str) -> bytes:
    message = v1.GenerateRequest(model="fake", text=text).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


class Proxy:
    """One request's stream to the picker."""

    def __init__(self, stub: Any, gateway: Gateway, pod: FakePod, fleet: Any) -> None:
        self.stream = stub.Process()
        self._gateway, self._pod, self.fleet = gateway, pod, fleet

    async def say(self, **fields: Any) -> None:
        await self.stream.write(ext_proc.ProcessingRequest(**fields))

    async def send_headers(self, values: dict[str, str] = GENERATE, **fields: Any) -> None:
        fields = {"protocol_config": DUPLEX, "request_headers": headers(values)} | fields
        await self.say(**fields)

    async def hear(self, phase: str) -> Any:
        answer = await self.stream.read()
        assert answer is not grpc.aio.EOF, f"the stream has ended before {phase}"
        assert answer.WhichOneof("response") == phase
        return answer

    async def hear_body(self, phase: str = "request_body") -> tuple[bytes, list[bool]]:
        """All of it, up to its end."""
        data, ends = b"", [False]
        while not ends[-1]:
            piece = (await self.hear(phase)).__getattribute__(phase).response
            assert len(piece.body_mutation.streamed_response.body) <= 64 * 1024
            data += piece.body_mutation.streamed_response.body
            ends.append(piece.body_mutation.streamed_response.end_of_stream)
        return data, ends[1:]

    async def hear_destination(self) -> str:
        answer = await self.hear("request_headers")
        options = answer.request_headers.response.header_mutation.set_headers
        said = {option.header.key: option.header.raw_value.decode() for option in options}
        assert answer.dynamic_metadata["envoy.lb"][DESTINATION] == said[DESTINATION]
        return str(said[DESTINATION])

    async def is_over(self) -> bool:
        return bool(await self.stream.read() is grpc.aio.EOF)

    async def until_free(self) -> None:
        await self.fleet.until(lambda: self.held == 0)

    @property
    def held(self) -> int:
        return int(self._gateway.core.admission.in_flight)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._pod.port}"

    @property
    def rest_address(self) -> str:
        return f"127.0.0.1:{self._pod.http_port}"


@pytest.fixture
async def proxy(fleet: Any) -> AsyncIterator[Callable[[], Proxy]]:
    (pod,) = await fleet.pods(FakePod(http_port=8000))
    gateway = await fleet.gateway(
        pod,
        endpoint_picker_address="127.0.0.1:0",
        endpoint_picker_plaintext=True,
        max_body_bytes=2**20,
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.picker_port}") as channel:
        stub: Any = ExternalProcessorStub(channel)
        yield lambda: Proxy(stub, gateway, pod, fleet)


async def test_a_call_from_its_headers_to_its_trailers(proxy: Callable[[], Proxy]) -> None:
    one, sent = proxy(), framed("x" * 200_000)
    await one.send_headers()
    await one.say(request_body=body(sent[:70_000]))
    await one.say(request_body=body(sent[70_000:]))
    await one.say(request_body=body(b"", is_last=True))
    assert await one.hear_destination() == one.address
    data, ends = await one.hear_body()
    assert data == sent and ends == [False] * (len(ends) - 1) + [True]
    await one.say(response_headers=headers({":status": "200", "content-type": "application/grpc"}))
    await one.hear("response_headers")
    await one.say(response_body=body(b"y" * 100_000))
    for expected in (60 * 1024, 100_000 - 60 * 1024):
        piece = (await one.hear("response_body")).response_body.response.body_mutation
        assert piece.streamed_response.body == b"y" * expected
        assert not piece.streamed_response.end_of_stream
    assert one.held == 1
    await one.say(response_trailers=trailers({"grpc-status": "0"}))
    await one.hear("response_trailers")
    assert await one.is_over()
    await one.until_free()


async def test_request_trailers_end_the_body(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(framed("Hello")))
    await one.say(request_trailers=trailers({"x-sum": "1"}))
    assert await one.hear_destination() == one.address
    piece = (await one.hear("request_body")).request_body.response.body_mutation.streamed_response
    assert (piece.body, piece.end_of_stream) == (framed("Hello"), False)
    await one.hear("request_trailers")


async def test_rest_goes_to_the_pods_other_port(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers(CHAT)
    await one.say(request_body=body(HELLO, is_last=True))
    assert await one.hear_destination() == one.rest_address
    assert await one.hear_body() == (HELLO, [True])
    await one.say(response_headers=headers({":status": "200"}))
    await one.hear("response_headers")
    await one.say(response_body=body(b"{}", is_last=True))
    assert await one.hear_body("response_body") == (b"{}", [True])
    assert await one.is_over()
    await one.until_free()


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize("form", ["{address}", "{ip}", "10.9.9.9:1, {address}"])
async def test_a_subset_with_the_pod_in_it_has_many_forms(
    proxy: Callable[[], Proxy], form: str, is_list: bool
) -> None:
    one = proxy()
    text = form.format(address=one.address, ip="127.0.0.1")
    await one.send_headers(metadata_context=subset(text.split(", ") if is_list else text))
    await one.say(request_body=body(framed("Hello"), is_last=True))
    assert await one.hear_destination() == one.address


@pytest.mark.parametrize("listed", [[], "", ["127.0.0.1:1"], ["10.9.9.9"]])
async def test_a_subset_without_the_pod_is_a_503(proxy: Callable[[], Proxy], listed: Any) -> None:
    one = proxy()
    await one.send_headers(CHAT, metadata_context=subset(listed))
    if listed:
        # Of an empty one the body is not waited for: the stream may be over before it comes.
        await one.say(request_body=body(HELLO, is_last=True))
    answer = (await one.hear("immediate_response")).immediate_response
    assert answer.status.code == 503
    assert await one.is_over()
    await one.until_free()


def subset(listed: Any) -> ext_proc.Metadata:
    context = ext_proc.Metadata()
    context.filter_metadata["envoy.lb.subset_hint"].update({f"{DESTINATION}-subset": listed})
    return context


@pytest.mark.parametrize("how", ["half-close", "reset"])
async def test_a_stream_that_closes_frees_the_place(proxy: Callable[[], Proxy], how: str) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(framed("Hello"), is_last=True))
    await one.hear_destination()
    assert one.held == 1
    if how == "reset":
        one.stream.cancel()
    else:
        await one.stream.done_writing()
    await one.until_free()


async def test_a_client_that_leaves_amid_its_body_leaves_nothing(
    proxy: Callable[[], Proxy],
) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(framed("Hello")[:9]))
    await one.stream.done_writing()
    assert await one.is_over()
    await one.until_free()


async def test_a_proxy_that_responds_itself_is_not_held_up(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(framed("Hello")[:9]))
    await one.say(response_headers=headers({":status": "408"}))
    await one.hear("response_headers")
    await one.say(response_body=body(b"late", is_last=True))
    assert await one.hear_body("response_body") == (b"late", [True])
    assert await one.is_over()
    await one.until_free()


async def test_a_response_of_headers_alone_ends_the_call(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(framed("Hello"), is_last=True))
    await one.hear_destination()
    await one.hear_body()
    refusal = {":status": "200", "grpc-status": "3", "grpc-message": "no"}
    await one.say(response_headers=headers(refusal, is_last=True))
    await one.hear("response_headers")
    assert await one.is_over()
    await one.until_free()


async def test_a_body_over_the_limit_is_refused_before_its_end(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers(CHAT)
    for _ in range(3):
        await one.say(request_body=body(b" " * 2**19))
    answer = (await one.hear("immediate_response")).immediate_response
    assert answer.status.code == 413
    await one.until_free()


async def test_grpc_errors_have_grpcs_form(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.send_headers()
    await one.say(request_body=body(b"\0\0\0\0\1x", is_last=True))
    answer = (await one.hear("immediate_response")).immediate_response
    assert (answer.status.code, answer.grpc_status.status) == (200, 3)
    names = {option.header.key for option in answer.headers.set_headers}
    assert {"grpc-status-details-bin", "x-request-id"} <= names


async def test_a_body_whose_proxy_sends_no_mode_is_streamed_back(
    proxy: Callable[[], Proxy],
) -> None:
    one = proxy()
    await one.say(request_headers=headers(CHAT))
    await one.say(request_body=body(HELLO, is_last=True))
    assert await one.hear_destination() == one.rest_address
    assert await one.hear_body() == (HELLO, [True])


async def test_a_stream_of_nothing_is_no_request(proxy: Callable[[], Proxy]) -> None:
    one = proxy()
    await one.stream.done_writing()
    assert await one.is_over()


async def test_a_certificate_of_files_can_be_verified(fleet: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    leaf.private_key_pem.write_to_path(str(key))
    files = {"endpoint_picker_cert_file": str(cert), "endpoint_picker_key_file": str(key)}
    gateway = await fleet.gateway(endpoint_picker_address="127.0.0.1:0", **files)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(f"localhost:{gateway.picker_port}", credentials) as channel:
        stub: Any = ExternalProcessorStub(channel)
        stream = stub.Process()
        await stream.write(ext_proc.ProcessingRequest(request_headers=headers(CHAT)))
        await stream.write(ext_proc.ProcessingRequest(request_body=body(HELLO, is_last=True)))
        assert (await stream.read()).immediate_response.status.code == 404


async def test_a_certificate_that_is_not_there_is_named(fleet: Any) -> None:
    files = {"endpoint_picker_cert_file": "/no/cert", "endpoint_picker_key_file": "/no/key"}
    with pytest.raises(FileNotFoundError, match="/no/cert"):
        await fleet.gateway(endpoint_picker_address="127.0.0.1:0", **files)


async def test_an_address_in_use_is_named(fleet: Any) -> None:
    gateway = await fleet.gateway(endpoint_picker_address="127.0.0.1:0")
    address = f"127.0.0.1:{gateway.picker_port}"
    with pytest.raises(AddressInUse, match=address):
        await fleet.gateway(endpoint_picker_address=address)
