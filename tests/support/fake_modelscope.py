"""A ModelScope on loopback that its own client accepts: lists of files, files, ranges, gates.

Serves what `modelscope` 1.40 requests. As the hub does, it sends small files whole, and redirects
to another host for large ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.fake_hub import (
    Hub,
    HubHandler,
    Model,
    by_name,
    is_large,
    serving_hub,
    sha256_of,
)
from tests.support.http_stand_in import part_of

TOKEN = "ms-accepted"
REVISIONS = ("master", "v1")


@contextmanager
def fake_modelscope(**models: Model) -> Iterator[Hub]:
    """Serve models by name, with `__` for `/`."""
    with serving_hub(_Handler, by_name(models)) as hub:
        yield hub


class _Handler(HubHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.hub.requests.append((self.command, self.path, dict(self.headers)))
        stored = re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", parts.path)
        found = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/(repo|repo/files)", parts.path)
        if stored:
            return self._content(self.hub.models[stored[1]], stored[2])
        model = self.hub.models.get(found[1]) if found else None
        if not found or model is None or query.get("Revision") not in REVISIONS:
            return self._error(404, "not found")
        if model.is_gated and self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._error(403, "no permission")
        if found[2] == "repo/files":
            return self._json(200, {"Code": 200, "Success": True, "Data": {"Files": _files(model)}})
        file = query.get("FilePath", "")
        if file not in model.files:
            return self._error(404, "no such file")
        if is_large(file):
            return self._redirect(f"/storage/{found[1]}/{file}")
        return self._send(200, model.files[file])

    def _content(self, model: Model, name: str) -> None:
        data = model.files[name]
        sent = bytes(len(data)) if name in model.corrupted else data
        part, content_range = part_of(sent, self.headers.get("range", ""))
        self._send(206 if content_range else 200, part, self._cut(model, name), content_range)

    def _cut(self, model: Model, name: str) -> int:
        """Return after how many bytes the first download of a file ends; 0 for never."""
        if not model.break_after or name in self.hub.broken:
            return 0
        self.hub.broken.add(name)
        return model.break_after

    def _redirect(self, path: str) -> None:
        self.send_response(302)
        self.send_header("location", self.hub.url.replace("127.0.0.1", "localhost") + path)
        self.send_header("content-length", "0")
        self.end_headers()

    def _send(self, status: int, body: bytes, cut: int = 0, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if content_range:
            self.send_header("content-range", content_range)
        self.end_headers()
        self.wfile.write(body[:cut] if cut else body)
        self.close_connection = bool(cut)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"Code": 10010000000 + status, "Success": False, "Message": message})


def _files(model: Model) -> list[dict[str, Any]]:
    directories = sorted({name.rpartition("/")[0] for name in model.files if "/" in name})
    trees = [{"Path": name, "Name": name, "Type": "tree", "Size": 0} for name in directories]
    return trees + [
        {
            "Path": name,
            "Name": name.rpartition("/")[2],
            "Type": "blob",
            "Size": len(data),
            "Sha256": sha256_of(data),
            "IsLFS": is_large(name),
        }
        for name, data in model.files.items()
    ]
