"""Reads models of ModelScope for commands, and chooses between the hubs by the scheme of a URI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.api.sizing import shape_of
from autoglm.api.uri import MODELSCOPE, location_of
from autoglm.cli.weights.checkpoint import INDEX, Sized, parse, with_index
from autoglm.cli.weights.download import HubModel, on_hub
from autoglm.cli.weights.hub import HubError, read_from_hub
from autoglm.cli.weights.listing import Listing
from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.api import ModelScopeError, endpoint
from autoglm.inference.modelscope.snapshot import Progress, Snapshot, snapshot, text_of


@dataclass(frozen=True, slots=True)
class ModelScopeModel:
    """A model on ModelScope, of which the files are listed."""

    snapshot: Snapshot
    listing: Listing

    @property
    def root(self) -> Path:
        """Return the directory that the files take space in."""
        return self.snapshot.directory

    def fetch(self, progress: Progress) -> Path:
        """Fetch what is not here, and return the model's directory. Raises HubError."""
        model = self.listing.model
        try:
            with _as_hub_error():
                self.snapshot.fetch(progress)
        except OSError as error:
            raise HubError(f"{model} cannot be stored: {error}", 1) from error
        return self.root


def on_a_hub(uri: str, revision: str, directory: str) -> HubModel | ModelScopeModel:
    """Return a model of a hub with its files; `directory` is empty for the hub's own cache.

    Raises HubError.
    """
    where = location_of(uri)
    if where.scheme != MODELSCOPE:
        return on_hub(where.name, revision, directory)
    with _as_hub_error():
        found = snapshot(uri, revision, Path(directory) if directory else None)
    return ModelScopeModel(found, Listing(_named(uri, revision), endpoint(), found.files))


def read_from_a_hub(uri: str, revision: str = "") -> Sized:
    """Return the shape of a model on a hub. Raises ClickException, UnknownModel, ValueError."""
    where = location_of(uri)
    if where.scheme != MODELSCOPE:
        return read_from_hub(where.name, revision)
    with _as_hub_error():
        shape = shape_of(parse(text_of(uri, "config.json", revision)))
        index = _index(uri, revision)
    return with_index(shape, index) if index else Sized(shape, "")


def _index(uri: str, revision: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text_of(uri, INDEX, revision))
    except ModelScopeError as error:
        # Small models have one file without an index.
        if error.exit_code in (ExitCode.NOT_A_MODEL, ExitCode.HUB_UNREACHABLE):
            return {}
        raise
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _named(uri: str, revision: str) -> str:
    """Return the URI with its revision, as `serve` takes it."""
    return f"{uri}@{revision}" if revision and "@" not in uri else uri


@contextmanager
def _as_hub_error() -> Iterator[None]:
    try:
        yield
    except ModelScopeError as error:
        raise HubError(str(error), error.exit_code) from error
