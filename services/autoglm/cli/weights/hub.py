"""Reads from the Hugging Face hub with its own client, and says in one sentence why it cannot.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` apply, as they do to the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from autoglm.api.sizing import shape_of
from autoglm.cli.weights.checkpoint import INDEX, Sized, parse, with_index
from autoglm.common.process import ExitCode

SECONDS = 5.0
"""Longest wait for the hub's first response."""


class HubError(click.ClickException):
    """One sentence of why the hub does not give a model, with the exit code of a pod's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has it on the class


def read_from_hub(name: str, revision: str = "") -> Sized:
    """Return the shape of a model on the hub. Raises ClickException, UnknownModel, ValueError."""
    shape = shape_of(parse(fetch(name, "config.json", revision).read_text(encoding="utf-8")))
    index = _index(name, revision)
    return with_index(shape, index) if index else Sized(shape, "")


def _index(name: str, revision: str) -> Mapping[str, Any]:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        found = json.loads(_download(name, INDEX, revision).read_text(encoding="utf-8"))
    except (EntryNotFoundError, LocalEntryNotFoundError, ValueError):
        # Small models have one file without an index.
        return {}
    return found if isinstance(found, Mapping) else {}


def fetch(name: str, file: str, revision: str = "") -> Path:
    """Return a small file of a model, from the local cache or the hub. Raises ClickException."""
    with in_one_sentence(name):
        return _download(name, file, revision)


def _download(name: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        path = hf_hub_download(
            name,
            file,
            revision=revision or None,
            etag_timeout=SECONDS,
            endpoint=endpoint(),
            local_files_only=not _is_reachable(name, file, revision),
        )
    finally:
        enable_progress_bars()
    return Path(path)


def endpoint() -> str:
    """Return the address of the hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _is_reachable(name: str, file: str, revision: str) -> bool:
    """Return whether the hub responds in time; the client itself retries for a minute.

    Raises the client's error where the hub rejects the request.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        url = hf_hub_url(name, file, revision=revision or None, endpoint=endpoint())
        get_hf_file_metadata(url, timeout=SECONDS, endpoint=endpoint())
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError):
        raise
    except Exception:  # of the HTTP library, which differs between versions of the client
        return False
    return True


@contextmanager
def in_one_sentence(name: str) -> Iterator[None]:
    """Turn errors of the hub's client into a HubError with the way out."""
    from huggingface_hub import constants, errors

    host = endpoint()
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(
            f"{name} is gated: accept its terms at {host}/{name}, and set HF_TOKEN to a token of "
            f"that account ({host}/settings/tokens)",
            ExitCode.GATED_MODEL,
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubError(
            f"{name} is neither a path here nor a model of {host}; check the name, and set "
            "HF_TOKEN where the model is private",
            ExitCode.MODEL_NOT_FOUND,
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{name} has no such revision at {host}", ExitCode.MODEL_NOT_FOUND
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(_offline(name), ExitCode.MODEL_NOT_FOUND) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise HubError(_offline(name), ExitCode.MODEL_NOT_FOUND) from error
        raise HubError(_unreachable(name, host), ExitCode.HUB_UNREACHABLE) from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{name} at {host} has no config.json", ExitCode.NOT_A_MODEL) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise HubError(
            f"{host} responds {status} for {name}; try again", ExitCode.HUB_UNREACHABLE
        ) from error


def _offline(name: str) -> str:
    return (
        f"{name} is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it; unset that, or "
        "give a directory"
    )


def _unreachable(name: str, host: str) -> str:
    return (
        f"{host} cannot be reached, and {name} is not in the local cache; check the network "
        "(HTTPS_PROXY, HF_ENDPOINT for a mirror), or give a directory"
    )
