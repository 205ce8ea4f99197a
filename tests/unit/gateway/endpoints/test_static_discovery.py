import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from autoglm.api.spec.traffic import Retries, Routing, Timeouts
from autoglm.gateway.endpoints.deployments import Rules
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.static_discovery import (
    Discovery,
    Name,
    Sources,
    Target,
    endpoints_of_file,
    parse_target,
)

POD = Endpoint("grpc://10.0.0.1:50051", "pod", "10.0.0.1", 50051)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("grpc://10.0.0.1:50051", POD),
        ("grpcs://[::1]:1", Endpoint("grpcs://[::1]:1", "pod", "::1", 1, tls=True)),
        ("http://h:80", Endpoint("http://h:80", "openai", "h", 80)),
        ("https://h", Endpoint("https://h:443", "openai", "h", 443, tls=True)),
        ("http://h:8/x/v1/", Endpoint("http://h:8/x", "openai", "h", 8, base="/x")),
        ("dns+grpc://pods:7", Name(Endpoint("grpc://pods:7", "pod", "pods", 7))),
    ],
)
def test_urls_name_endpoints(url: str, target: Target) -> None:
    assert parse_target(url) == target


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "10.0.0.1:50051",
            "grpc://h",
            "grpc://h:0",
            "grpc://h:99999",
            "grpc://:1",
            "ftp://h:1",
        ),
        *("grpc://h:1/path", "dns+http://h:1", "http://user:pass@h:1", "http://h:1?q", "dns+h:1"),
    ],
)
def test_other_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint '"):
        parse_target(url)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"endpoints": "x"}', '{"endpoints": [1]}', '{"endpoints": ["x"]}']
)
def test_bad_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        endpoints_of_file(text)


def test_a_file_says_which_rules_hold_for_which_names() -> None:
    routing = {"timeouts": {"totalSeconds": 2}, "retries": {"attempts": 1}}
    spec = {"model": {"aliases": ["b"]}, "routing": routing}
    text = json.dumps({"endpoints": [], "resources": [{"metadata": {"name": "a"}, "spec": spec}]})

    targets, (resource,) = endpoints_of_file(text)

    assert targets == ()
    assert resource.names == ("a", "b")
    assert resource.rules == Rules(
        routing=Routing(timeouts=Timeouts(total_seconds=2), retries=Retries(attempts=1))
    )


def test_ipv6_addresses_are_dialled_in_brackets() -> None:
    target = parse_target("grpc://[::1]:1")
    assert isinstance(target, Endpoint) and target.address == "[::1]:1"


class Heard:
    """A listener that keeps the changes, as URLs."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []

    def __call__(self, endpoints: Iterable[Endpoint]) -> None:
        self.sets.append([endpoint.url for endpoint in endpoints])


class Zone:
    """A resolver of one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def __call__(self, host: str, port: int) -> list[str]:
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


async def test_every_address_of_a_name_is_an_endpoint() -> None:
    heard = Heard()
    urls = ("dns+grpc://pods:7", POD.url, "grpc://10.1.0.1:7")
    await Discovery(Sources(urls), heard, Zone("10.1.0.1", "10.1.0.2")).start()
    assert heard.sets == [["grpc://10.1.0.1:7", "grpc://10.1.0.2:7", POD.url]]


@pytest.mark.looptime
async def test_names_are_resolved_again_and_the_last_response_is_kept() -> None:
    heard, zone = Heard(), Zone("10.1.0.1")
    discovery = Discovery(Sources(("dns+grpc://pods:7",)), heard, zone)
    await discovery.start()
    task = asyncio.create_task(discovery.run())
    zone.addresses = []
    await asyncio.sleep(6)
    zone.addresses = ["10.1.0.2"]
    await asyncio.sleep(5)
    task.cancel()
    assert heard.sets == [["grpc://10.1.0.1:7"], ["grpc://10.1.0.2:7"]]


@pytest.mark.looptime
async def test_file_is_read_again_and_a_bad_one_keeps_the_last_state(tmp_path: Path) -> None:
    heard, file = Heard(), tmp_path / "endpoints.json"
    discovery = Discovery(Sources(file=str(file)), heard)
    await discovery.start()
    task = asyncio.create_task(discovery.run())
    for text in ('{"endpoints": ["grpc://a:1"]}', "not json", '{"endpoints": ["grpc://b:22"]}'):
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.replace(file)
        await asyncio.sleep(1)
    task.cancel()
    assert heard.sets == [[], ["grpc://a:1"], ["grpc://b:22"]]
