"""Discovers endpoints from flags, from a file, and from all addresses of a DNS name.

Parsing is pure; `Discovery` polls the file and the resolver, and calls its listener with the whole
set whenever it changes. If a read or a resolution fails, the previous state is kept.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from autoglm.common.addresses import without_user_info
from autoglm.gateway.endpoints.deployments import Directory, Resource, directory_of
from autoglm.gateway.endpoints.endpoint import Endpoint, Kind
from autoglm.gateway.endpoints.kubernetes_objects import resource_of

_FORMS = "grpc(s)://HOST:PORT, http(s)://HOST:PORT[/BASE] or dns+grpc(s)://NAME:PORT"
_KINDS: dict[str, tuple[Kind, bool]] = {
    "grpc": ("pod", False),
    "grpcs": ("pod", True),
    "http": ("openai", False),
    "https": ("openai", True),
}
_DNS = "dns+"
_FILE_POLL_SECONDS = 0.5
_log = logging.getLogger("autoglm.gateway")


@dataclass(frozen=True, slots=True)
class Name:
    """A DNS name: all addresses of `like.host` are endpoints like `like`."""

    like: Endpoint


Target = Endpoint | Name
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


def parse_target(url: str) -> Target:
    """Parse an endpoint's URL. Raises ValueError."""
    named = url.startswith(_DNS)
    parts = urlsplit(url.removeprefix(_DNS))
    kind, tls = _KINDS.get(parts.scheme, (None, False))
    base = parts.path.rstrip("/")
    shown = without_user_info(url)
    if kind is None or not parts.hostname or (kind == "pod" and base) or (named and kind != "pod"):
        raise ValueError(f"endpoint {shown!r} is not {_FORMS}")
    if "@" in parts.netloc:
        raise ValueError(
            f"endpoint {shown!r} has a user or a password, which logs would show; give the key of "
            "http(s) endpoints by --upstream-api-key-file"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"endpoint {shown!r} has more than {_FORMS}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"endpoint {url!r}: {error}") from error
    if port is None and parts.scheme.startswith("http"):
        port = 443 if tls else 80
    if not port:
        raise ValueError(f"endpoint {url!r} has no port; it is {_FORMS}")
    endpoint = _endpoint(kind, tls, parts.hostname, port, base)
    return Name(endpoint) if named else endpoint


def _endpoint(kind: Kind, tls: bool, host: str, port: int, base: str = "") -> Endpoint:
    scheme = ("grpc" if kind == "pod" else "http") + ("s" if tls else "")
    shown = f"[{host}]" if ":" in host else host
    # Users write the base of an OpenAI server with or without /v1.
    base = base.removesuffix("/v1")
    return Endpoint(f"{scheme}://{shown}:{port}{base}", kind, host, port, tls, base)


class Listing(msgspec.Struct):
    """An endpoints file. Resources set the rules of their names; they are optional."""

    endpoints: tuple[str, ...]
    resources: tuple[msgspec.Raw, ...] = ()


def endpoints_of_file(text: str) -> tuple[tuple[Target, ...], tuple[Resource, ...]]:
    """Parse an endpoints file. Raises ValueError."""
    try:
        listing = msgspec.json.decode(text, type=Listing)
    except msgspec.DecodeError as error:
        raise ValueError(
            f'it is not JSON of the form {{"endpoints": [URL, ...]}}: {error}'
        ) from error
    targets = tuple(parse_target(url) for url in listing.endpoints)
    return targets, tuple(resource_of(raw) for raw in listing.resources)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a DNS name. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of static endpoints."""

    urls: tuple[str, ...] = ()
    file: str = ""
    dns_refresh_seconds: float = 5.0


class Discovery:
    """Calls `listener` with all endpoints, first before `start` returns, then on each change.

    `on_resources` is called with the resources of the file, whenever it lists any.
    """

    def __init__(
        self,
        sources: Sources,
        listener: Callable[[Iterable[Endpoint]], None],
        resolver: Resolve = resolve,
        on_resources: Callable[[Directory], None] = lambda directory: None,
    ) -> None:
        self._sources = sources
        self._listener = listener
        self._on_resources = on_resources
        self._resolver = resolver
        self._given = tuple(parse_target(url) for url in sources.urls)
        self._listed: tuple[Target, ...] = ()
        self._file_seen: tuple[int, int] | None = None
        self._addresses: dict[str, tuple[Endpoint, ...]] = {}
        self._last: tuple[Endpoint, ...] | None = None

    async def start(self) -> None:
        """Read the file, resolve the names and publish the endpoints once."""
        self._read_file()
        await self._resolve_names()
        self._publish()

    async def run(self) -> None:
        """Poll until cancelled."""
        await asyncio.gather(self._run_file(), self._run_dns())

    async def _run_file(self) -> None:
        while self._sources.file:
            await asyncio.sleep(_FILE_POLL_SECONDS)
            if self._read_file():
                await self._resolve_names()
                self._publish()

    async def _run_dns(self) -> None:
        while True:
            await asyncio.sleep(self._sources.dns_refresh_seconds)
            await self._resolve_names()
            self._publish()

    def _read_file(self) -> bool:
        """Return whether a new list was read."""
        if not self._sources.file:
            return False
        path = Path(self._sources.file)
        try:
            about = path.stat()
            seen = (about.st_mtime_ns, about.st_ino)
            if seen == self._file_seen:
                return False
            self._file_seen = seen
            self._listed, resources = endpoints_of_file(path.read_text())
            if resources:
                self._on_resources(directory_of(resources))
        except (OSError, ValueError) as error:
            _log.warning(
                "ignoring invalid endpoints file %s, keeping the previous version: %s", path, error
            )
            return False
        return True

    async def _resolve_names(self) -> None:
        names = {t.like.url: t.like for t in (*self._given, *self._listed) if isinstance(t, Name)}
        await asyncio.gather(*(self._resolve_name(like) for like in names.values()))

    async def _resolve_name(self, like: Endpoint) -> None:
        try:
            addresses = await self._resolver(like.host, like.port)
        except OSError as error:
            _log.warning("cannot resolve %s, keeping the previous addresses: %s", like.host, error)
            return
        self._addresses[like.url] = tuple(
            _endpoint(like.kind, like.tls, address, like.port) for address in addresses
        )

    def _publish(self) -> None:
        endpoints: dict[str, Endpoint] = {}
        for target in (*self._given, *self._listed):
            found = (
                self._addresses.get(target.like.url, ()) if isinstance(target, Name) else (target,)
            )
            endpoints |= {endpoint.url: endpoint for endpoint in found}
        if tuple(endpoints.values()) != self._last:
            self._last = tuple(endpoints.values())
            self._listener(self._last)
