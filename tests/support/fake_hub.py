"""A hub on loopback that the clients of Hugging Face accept: models, files, ranges, gates.

Serves what `huggingface_hub` 2.x requests: a model's description, its tree, and its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_stand_in import QuietHandler, part_of, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_accepted"


@dataclass
class Model:
    """A model of the hub."""

    files: Mapping[str, bytes]
    is_gated: bool = False
    """Whether TOKEN is needed to read it."""
    break_after: int = 0
    """Bytes of a large file after which the first download ends; 0 for none."""
    corrupted: frozenset[str] = frozenset()
    """Files that are served with another content than their checksum's."""


@dataclass
class Hub:
    """What the hub has, and the requests that it got."""

    url: str
    models: dict[str, Model]
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


@contextmanager
def fake_hub(**models: Model) -> Iterator[Hub]:
    """Serve models by name, with `__` for `/`."""
    with serving_hub(_Handler, by_name(models)) as hub:
        yield hub


@contextmanager
def hub_at(host: str, models: Mapping[str, Model]) -> Iterator[Hub]:
    """Serve models by name at an address of this machine."""
    with serving_hub(_Handler, models, host) as hub:
        yield hub


class HubHandler(QuietHandler):
    """Serves a hub."""

    hub: Hub


@contextmanager
def serving_hub(
    handler: type[HubHandler], models: Mapping[str, Model], host: str = "127.0.0.1"
) -> Iterator[Hub]:
    """Serve models by name in the way of a handler."""
    found = Hub("", dict(models))
    with serving(type("Handler", (handler,), {"hub": found}), host) as url:
        found.url = url
        yield found


def by_name(models: Mapping[str, Model]) -> dict[str, Model]:
    """Return models whose keywords have `__` for `/`."""
    return {name.replace("__", "/"): model for name, model in models.items()}


class _Handler(HubHandler):
    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._respond()

    def _respond(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, self.path, dict(self.headers)))
        api = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info|auth-check)(?:/([^/]+)(?:/.*)?)?)?",
            path,
        )
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (api or file)[1] if (api or file) else ""  # type: ignore[index]
        model = self.hub.models.get(name)
        if model is None:
            self._error(404, "RepoNotFound", "Repository Not Found")
        elif api and api[2] == "auth-check" and not self._may_read(model):
            self._gated(name)
        elif api:
            self._json(
                self._tree(model) if api[2] in ("tree", "paths-info") else self._about(name, model)
            )
        elif not self._may_read(model):
            self._gated(name)
        elif file and file[3] in model.files:
            self._file(model, file[3])
        else:
            self._error(404, "EntryNotFound", "Entry not found")

    def _may_read(self, model: Model) -> bool:
        return not model.is_gated or self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _gated(self, name: str) -> None:
        self._error(403, "GatedRepo", f"Access to model {name} is restricted")

    def _about(self, name: str, model: Model) -> Any:
        siblings = [
            {"rfilename": f, "size": len(data), "blobId": _sha1(data),
             **({"lfs": {"size": len(data), "sha256": sha256_of(data), "pointerSize": 134}}
                if is_large(f) else {})}
            for f, data in model.files.items()
        ]  # fmt: skip
        return {
            "_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False,
            "gated": "manual" if model.is_gated else False, "tags": [], "siblings": siblings,
        }  # fmt: skip

    def _tree(self, model: Model) -> Any:
        return [
            {"type": "file", "path": f, "size": len(data), "oid": _sha1(data),
             **({"lfs": {"size": len(data), "oid": sha256_of(data), "pointerSize": 134}}
                if is_large(f) else {})}
            for f, data in model.files.items()
        ]  # fmt: skip

    def _file(self, model: Model, name: str) -> None:
        data = model.files[name]
        etag = sha256_of(data) if is_large(name) else _sha1(data)
        sent = bytes(len(data)) if name in model.corrupted else data
        part, content_range = part_of(sent, self.headers.get("range", ""))
        self.send_response(206 if content_range else 200)
        self.send_header("etag", f'"{etag}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("accept-ranges", "bytes")
        self.send_header("content-length", str(len(part)))
        if content_range:
            self.send_header("content-range", content_range)
        self.end_headers()
        if self.command == "HEAD":
            return
        if model.break_after and is_large(name) and name not in self.hub.broken:
            self.hub.broken.add(name)
            self.wfile.write(part[: model.break_after])
            self.close_connection = True
            return
        self.wfile.write(part)

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("x-error-code", code)
        self.send_header("x-error-message", message)
        self.send_header("content-length", "0")
        self.end_headers()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt"))


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha1(data: bytes) -> str:
    """The id of a blob of Git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
