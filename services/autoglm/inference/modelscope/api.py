"""Requests of ModelScope's HTTP API: a model's list of files, and the content of one.

`MODELSCOPE_ENDPOINT` (or `MODELSCOPE_DOMAIN`) and `MODELSCOPE_API_TOKEN` apply, as to the hub's own
client. Writes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import PurePosixPath
from typing import Final
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from autoglm.api.uri import MODELSCOPE, location_of, problem_of_uri
from autoglm.common.process import ExitCode
from autoglm.inference.weight_files import File

_ENDPOINT: Final = "https://modelscope.cn"
_BRANCH: Final = "master"
_LIST_SECONDS, _FILE_SECONDS = 10.0, 60.0
"""Longest wait for a response to begin, and for its next bytes."""
_CHUNK_BYTES: Final = 2**20
# The hub lists no more, and does not say so.
_MOST_ENTRIES: Final = 3000


class ModelScopeError(Exception):
    """One sentence of why ModelScope does not give a model, with a pod's exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Repository:
    """A revision of a model on the hub."""

    name: str
    revision: str = _BRANCH

    @property
    def uri(self) -> str:
        return f"{MODELSCOPE}://{self.name}"

    def files(self) -> Mapping[str, File]:
        """Return all files by name. Raises ModelScopeError."""
        query = {"Revision": self.revision, "Recursive": "True"}
        with self._opened("repo/files", query, _LIST_SECONDS) as response:
            text = b"".join(self._chunks(response))
        try:
            entries = json.loads(text)["Data"]["Files"] or []
            blobs = [entry for entry in entries if entry.get("Type") != "tree"]
            found = [File(e["Path"], int(e["Size"]), e.get("Sha256") or "") for e in blobs]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelScopeError(
                f"{endpoint()} does not respond as ModelScope for {self.uri}; check "
                "MODELSCOPE_ENDPOINT",
                ExitCode.HUB_UNREACHABLE,
            ) from error
        if len(entries) >= _MOST_ENTRIES:
            raise ModelScopeError(
                f"{self.uri} has more files than {endpoint()} lists ({_MOST_ENTRIES}); download it "
                "by `modelscope download`, and give the directory",
                ExitCode.NOT_A_MODEL,
            )
        return {file.name: file for file in found if _is_inside(file.name)}

    def text(self, file: str) -> str:
        """Return a small file. Raises ModelScopeError, NOT_A_MODEL where there is none."""
        if file not in self.files():
            message = f"{self.uri} at {endpoint()} has no {file}"
            raise ModelScopeError(message, ExitCode.NOT_A_MODEL)
        with self.content(file) as (_, chunks):
            return b"".join(chunks).decode(errors="replace")

    @contextmanager
    def content(self, file: str, first: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield a file's bytes, and the offset where they begin: `first`, or 0 where the hub sends
        the whole file all the same, as it does for small ones. Raises ModelScopeError."""
        query = {"Revision": self.revision, "FilePath": file}
        headers = {"Range": f"bytes={first}-"} if first else {}
        with self._opened("repo", query, _FILE_SECONDS, headers) as response:
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {first}-")
            yield (first if resumes else 0), self._chunks(response)

    @contextmanager
    def _opened(
        self,
        path: str,
        query: Mapping[str, str],
        seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        url = f"{endpoint()}/api/v1/models/{quote(self.name)}/{path}?{urlencode(query)}"
        request = Request(url, headers={"User-Agent": "open-autoglm", **(headers or {})})
        if token := os.environ.get("MODELSCOPE_API_TOKEN"):
            # Not for the hosts of large files, which the hub redirects to.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
            request.add_unredirected_header("Cookie", f"m_session_id={token}")
        try:
            response = urlopen(request, timeout=seconds)
        except HTTPError as error:
            with error:
                raise self._rejected(error.code) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        with response:
            yield response

    def _chunks(self, response: HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                chunk = response.read1(_CHUNK_BYTES)
            except (OSError, HTTPException) as error:
                raise self._unreachable(error) from error
            if not chunk:
                return
            yield chunk

    def _rejected(self, status: int) -> ModelScopeError:
        host = endpoint()
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ModelScopeError(
                f"{self.uri} is gated: accept its terms at {host}/models/{self.name}, and set "
                "MODELSCOPE_API_TOKEN to a token of that account",
                ExitCode.GATED_MODEL,
            )
        if status == HTTPStatus.NOT_FOUND:
            return ModelScopeError(
                f"{self.uri} is no model of {host}, or has no revision {self.revision}; check "
                "both, and set MODELSCOPE_API_TOKEN where the model is private",
                ExitCode.MODEL_NOT_FOUND,
            )
        return ModelScopeError(
            f"{host} responds {status} for {self.uri}; try again", ExitCode.HUB_UNREACHABLE
        )

    def _unreachable(self, error: Exception) -> ModelScopeError:
        why = getattr(error, "reason", None) or str(error) or type(error).__name__
        return ModelScopeError(
            f"{endpoint()} cannot be reached for {self.uri} ({why}); check the network, "
            "HTTPS_PROXY, and MODELSCOPE_ENDPOINT for another address, and try again: what has "
            "been downloaded is kept",
            ExitCode.HUB_UNREACHABLE,
        )


def repository(uri: str, revision: str = "") -> Repository:
    """Return the repository of an ms:// URI. Raises ModelScopeError for a malformed one.

    `revision` applies where the URI has none; empty is the default branch.
    """
    if why := problem_of_uri(uri):
        raise ModelScopeError(f"{uri} {why}", ExitCode.MODEL_NOT_FOUND)
    name, own = location_of(uri).repository
    chosen = own or revision or _BRANCH
    # It names a directory of the cache as well.
    if not _is_inside(chosen):
        message = f"{uri}: the revision {chosen!r} is a path; give a branch, a tag or a commit"
        raise ModelScopeError(message, ExitCode.MODEL_NOT_FOUND)
    return Repository(name, chosen)


def endpoint() -> str:
    """Return the address of the hub."""
    given = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN", "")
    address = given.strip().rstrip("/") or _ENDPOINT
    return address if "://" in address else f"https://{address}"


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
