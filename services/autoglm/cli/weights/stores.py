"""Copies a model from an object store or another file system (s3, gs, az, file) by fsspec,
with obstore for object stores.

Complete files are kept between runs, and compared by size: stores state no SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from autoglm.cli.weights.listing import Listing
from autoglm.inference.modelscope.snapshot import Progress
from autoglm.inference.weight_files import File, files_of

_CHUNK_BYTES: Final = 16 * 2**20
_OBJECT_STORES: Final = ("s3", "gs", "az", "abfs")
STORES: Final = (*_OBJECT_STORES, "file")
"""Schemes that are copied."""
OTHERS: Final = {
    "oci": "oras pull {name} --output DIR",
}
"""Schemes that have a tool of their own."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in a store, of which the files are listed."""

    files: Any
    """fsspec's file system."""
    prefix: str
    root: Path
    listing: Listing

    def fetch(self, progress: Progress) -> Path:
        """Copy what is not here, and return the model's directory. Raises ClickException."""
        with _in_one_sentence(self.listing.model):
            for file in (each for each in self.listing.files if not each.is_here):
                target = self.root / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f"{target.name}.partial")
                with (
                    self.files.open(f"{self.prefix}/{file.name}", "rb") as source,
                    partial.open("wb") as copy,
                ):
                    while chunk := source.read(_CHUNK_BYTES):
                        copy.write(chunk)
                        progress(len(chunk))
                if (size := partial.stat().st_size) != file.size:
                    raise click.ClickException(
                        f"{file.name} has {size} bytes instead of {file.size}; run the command "
                        "again"
                    )
                partial.replace(target)
        return self.root


def in_store(uri: str, scheme: str, root: Path) -> StoredModel:
    """Return a model of a store with its files. Raises ClickException."""
    import fsspec

    with _in_one_sentence(uri):
        if scheme in _OBJECT_STORES:
            try:
                from obstore.fsspec import register
            except ImportError as error:
                message = f"{scheme}:// needs the package obstore: pip install obstore"
                raise click.ClickException(message) from error
            register(scheme)
        files, prefix = fsspec.core.url_to_fs(uri.rstrip("/"))
        found = files.find(prefix, detail=True)
    sizes = {
        path.removeprefix(prefix).lstrip("/"): int(about["size"] or 0)
        for path, about in found.items()
    }
    if "config.json" not in sizes:
        raise click.ClickException(f"{uri} has no config.json; give the directory of a checkpoint")
    listed = [
        File(name, sizes[name], is_here=_has(root / name, sizes[name]))
        for name in sorted(files_of(sizes))
    ]
    return StoredModel(files, prefix, root, Listing(uri, f"{scheme}://", listed))


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextmanager
def _in_one_sentence(uri: str) -> Iterator[None]:
    try:
        yield
    except click.ClickException:
        raise
    # Each store's library has errors of its own.
    except Exception as error:
        # Clients of object stores append what they are made of.
        why = " ".join(str(error).partition("Debug source")[0].split()) or type(error).__name__
        raise click.ClickException(
            f"{uri}: {why}; check the URI, the store's credentials in the environment, and the "
            "network"
        ) from error
