"""Copies a model from an object store or another file system (s3, gs, az, file) by fsspec.

Complete files are kept between runs, and compared by size: stores state no SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from autoglm.cli.weights.download import Progress
from autoglm.cli.weights.listing import File, Listing
from autoglm.inference.weight_files import files_of

# The package that reads a scheme, as fsspec's documentation lists them.
_PACKAGES: Final = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
STORES: Final = (*_PACKAGES, "file")
"""Schemes that are copied."""
OTHERS: Final = {
    "ms": "pip install modelscope && modelscope download --model {name} --local_dir DIR",
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
        from fsspec.callbacks import Callback

        class Sizes(Callback):  # type: ignore[misc,unused-ignore]
            def relative_update(self, inc: int = 1) -> None:
                progress(inc)

        with _in_one_sentence(self.listing.model):
            for file in (each for each in self.listing.files if not each.is_here):
                target = self.root / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f"{target.name}.partial")
                self.files.get_file(
                    f"{self.prefix}/{file.name}", str(partial), callback=Sizes(size=file.size)
                )
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
        try:
            files, prefix = fsspec.core.url_to_fs(uri.rstrip("/"))
        except ImportError as error:
            package = _PACKAGES.get(scheme, "its package")
            message = f"{scheme}:// needs the package {package}: pip install {package}"
            raise click.ClickException(message) from error
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
        why = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(
            f"{uri}: {why}; check the URI, the store's credentials in the environment, and the "
            "network"
        ) from error
