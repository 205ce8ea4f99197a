"""Fetches the files of a model of ModelScope that vLLM loads, and finds them again.

The cache (`MODELSCOPE_CACHE`) has the layout of the hub's own client, so that either finds what the
other fetched. A broken download resumes where it broke, in a later run too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.api import ModelScopeError, Repository, endpoint, repository
from autoglm.inference.weight_files import File, files_of

_CHUNK_BYTES: Final = 8 * 2**20
_RECORD: Final = ".autoglm-files.json"
_LOCK: Final = ".autoglm.lock"
Progress = Callable[[int], None]
"""Takes bytes as they arrive; a negative number where they have to be fetched again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a revision that vLLM needs, and the directory that they are fetched into."""

    source: Repository
    directory: Path
    files: tuple[File, ...]

    @property
    def missing(self) -> int:
        """Return the bytes to fetch."""
        return sum(file.size for file in self.files if not file.is_here)

    def present(self) -> int:
        """Return the bytes in the directory now, those of partial files too."""
        paths = [self.directory / file.name for file in self.files]
        return sum(_size(path) or _size(_partial(path)) for path in paths)

    def fetch(self, progress: Progress, *, check: bool = False) -> None:
        """Fetch what is not here; with `check` compare it with the hub's checksums.

        Of several processes one fetches a file. Raises ModelScopeError and OSError.
        """
        missing = [file for file in self.files if not file.is_here]
        if not missing:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.directory / _LOCK):
            recorded = _recorded(self.directory)
            for file in missing:
                if _is_here(self.directory, file, recorded):
                    progress(file.size)
                    continue
                path = self._fetch(file, progress)
                if check and not is_intact(path, file.sha256):
                    path.unlink()
                    raise _corrupt(self.source, file)
            _record(self.directory, self.files)

    def _fetch(self, file: File, progress: Progress) -> Path:
        """Fetch a file in as many attempts as each bring more of it."""
        target = self.directory / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        if _size(partial) > file.size:
            partial.unlink()
        most = _size(partial)
        progress(most)
        while not partial.exists() or _size(partial) != file.size:
            broken: ModelScopeError | None = None
            try:
                self._receive(file, partial, progress)
            except ModelScopeError as error:
                broken = error
            have = _size(partial)
            if not most < have < file.size and have != file.size:
                raise broken or _incomplete(self.source, file, have)
            most = have
        return partial.replace(target)

    def _receive(self, file: File, partial: Path, progress: Progress) -> None:
        have = _size(partial)
        with self.source.content(file.name, have) as (first, chunks):
            progress(first - have)
            with partial.open("ab" if first else "wb") as copy:
                for chunk in chunks:
                    copy.write(chunk)
                    progress(len(chunk))


def snapshot(uri: str, revision: str = "", directory: Path | None = None) -> Snapshot:
    """Return the files of an ms:// URI; those of an earlier run where the hub is unreachable.

    `directory` is where they go; None for the cache. Raises ModelScopeError.
    """
    source = repository(uri, revision)
    root = directory or cached(source)
    recorded = _recorded(root)
    try:
        listed = source.files()
    except ModelScopeError as error:
        known = _marked(root, recorded.values(), recorded)
        is_whole = bool(known) and all(file.is_here for file in known)
        if error.exit_code is not ExitCode.HUB_UNREACHABLE or not is_whole:
            raise
        return Snapshot(source, root, known)
    wanted = [listed[name] for name in sorted(files_of(listed))]
    return Snapshot(source, root, _marked(root, wanted, recorded))


def text_of(uri: str, file: str, revision: str = "") -> str:
    """Return a small file of a model; the cached one where the hub is unreachable.

    Raises ModelScopeError, with NOT_A_MODEL where the model has no such file.
    """
    source = repository(uri, revision)
    try:
        return source.text(file)
    except ModelScopeError as error:
        path = cached(source) / file
        if error.exit_code is ExitCode.HUB_UNREACHABLE and path.is_file():
            return path.read_text(encoding="utf-8")
        raise


def cached(source: Repository) -> Path:
    """Return the directory of a revision in the cache, as the hub's own client names it."""
    root = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
    return root / "models" / source.name.replace("/", "--") / "snapshots" / source.revision


def is_intact(path: Path, sha256: str, progress: Progress = lambda size: None) -> bool:
    """Return whether a file has the checksum that its source states, if it states one."""
    if not sha256:
        progress(_size(path))
        return True
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest() == sha256


def _incomplete(source: Repository, file: File, size: int) -> ModelScopeError:
    return ModelScopeError(
        f"{file.name} of {source.uri} has {size} bytes at {endpoint()} instead of the {file.size} "
        "that are listed; try again",
        ExitCode.HUB_UNREACHABLE,
    )


def _corrupt(source: Repository, file: File) -> ModelScopeError:
    return ModelScopeError(
        f"{file.name} of {source.uri} is corrupt: its SHA-256 is not {file.sha256[:12]}..., as the "
        "hub states it. It is removed; try again, and check disk and proxies if that repeats",
        ExitCode.NOT_A_MODEL,
    )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock, which the kernel releases with the process."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record(directory: Path, files: tuple[File, ...]) -> None:
    """Note which files the directory has: their sizes alone do not show that a branch moved."""
    partial = directory / f"{_RECORD}.partial"
    partial.write_text(json.dumps([asdict(file) for file in files]), encoding="utf-8")
    partial.replace(directory / _RECORD)


def _recorded(directory: Path) -> Mapping[str, File]:
    with suppress(OSError, ValueError, TypeError):
        found: list[dict[str, Any]] = json.loads((directory / _RECORD).read_text("utf-8"))
        return {file.name: file for file in (File(**entry) for entry in found)}
    return {}


def _marked(
    directory: Path, files: Iterable[File], recorded: Mapping[str, File]
) -> tuple[File, ...]:
    return tuple(replace(each, is_here=_is_here(directory, each, recorded)) for each in files)


def _is_here(directory: Path, file: File, recorded: Mapping[str, File]) -> bool:
    path, known = directory / file.name, recorded.get(file.name, file)
    return path.is_file() and _size(path) == file.size and known.sha256 == file.sha256


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.incomplete")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
