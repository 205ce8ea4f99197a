"""Fetches a model from the hub with the hub's own client, into its cache or a directory.

A broken connection resumes where it broke; an interrupted run keeps the files that are complete.
The client resumes no partial file of an earlier run, so files are fetched one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.cli.weights.hub import SECONDS, HubError, endpoint, in_one_sentence
from autoglm.cli.weights.listing import Listing
from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.snapshot import Progress, is_intact
from autoglm.inference.weight_files import File, files_of


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub, of which the files are listed."""

    name: str
    revision: str
    """Branch, tag or commit; empty for the default branch."""
    commit: str
    directory: str
    """Where the files go; empty for the hub's cache."""
    listing: Listing

    @property
    def root(self) -> Path:
        """Return the directory, or the cache, that the files take space in."""
        from huggingface_hub import constants

        return Path(self.directory or constants.HF_HUB_CACHE)

    def fetch(self, progress: Progress) -> Path:
        """Fetch what is not here, and return the model's directory. Raises ClickException."""
        from huggingface_hub import hf_hub_download, snapshot_download

        bar, names = _bar_class(progress), [file.name for file in self.listing.files]
        common: dict[str, Any] = {
            "endpoint": endpoint(),
            "local_dir": self.directory or None,
            "etag_timeout": SECONDS,
        }
        with in_one_sentence(self.name), _network(self.name):
            for name in names:
                hf_hub_download(self.name, name, revision=self.commit, tqdm_class=bar, **common)
            # Nothing is left to fetch; this notes which commit the revision is.
            with without_bars():
                found = snapshot_download(
                    self.name, revision=self.revision or None, allow_patterns=names, **common
                )
        return Path(found)


def on_hub(name: str, revision: str, directory: str) -> HubModel:
    """Return a model of the hub with its files. Raises HubError."""
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi(endpoint=endpoint())
    with in_one_sentence(name), _network(name):
        about = api.model_info(
            name, revision=revision or None, files_metadata=True, timeout=SECONDS
        )
        if about.gated:
            api.auth_check(name)
        known = {each.rfilename: each for each in about.siblings or ()}
        with without_bars():
            found = snapshot_download(
                name,
                revision=about.sha,
                allow_patterns=files_of(known),
                local_dir=directory or None,
                endpoint=endpoint(),
                etag_timeout=SECONDS,
                dry_run=True,
            )
    files = [
        File(
            each.filename,
            each.file_size or 0,
            (lfs.sha256 if (lfs := known[each.filename].lfs) else "") or "",
            not each.will_download,
        )
        for each in found
    ]
    card = about.card_data
    listing = Listing(
        name,
        endpoint(),
        sorted(files, key=lambda file: file.name),
        str(card.get("license") or "") if card else "",
    )
    return HubModel(name, revision, about.sha or "", directory, listing)


def verified(model: str, files: Iterable[File], root: Path, progress: Progress) -> None:
    """Compare the files with the checksums that the source states.

    Removes a file with another one, and raises HubError.
    """
    for file in files:
        path = root / file.name
        if not is_intact(path, file.sha256, progress):
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise HubError(
                f"{file.name} of {model} is corrupt: its SHA-256 is not {file.sha256[:12]}..., as "
                "the hub states it. It is removed; run the command again, and check disk and "
                "proxies if that repeats",
                ExitCode.NOT_A_MODEL,
            )


@contextmanager
def _network(model: str) -> Iterator[None]:
    """Turn errors of the HTTP library, which differs between clients, into a HubError."""
    try:
        yield
    except OSError as error:
        if type(error).__module__.startswith(("huggingface_hub", "requests")):
            raise
        raise HubError(f"{model} cannot be stored: {error}", 1) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise HubError(
            f"{endpoint()} cannot be reached for {model} ({type(error).__name__}); check the "
            "network, HTTPS_PROXY, and HF_ENDPOINT for a mirror, and run the command again: files "
            "that are complete are kept",
            ExitCode.HUB_UNREACHABLE,
        ) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the client from drawing progress bars of its own."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _bar_class(progress: Progress) -> Any:
    """Return what the client takes for a progress bar, which draws nothing."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            known = ("desc", "total", "initial", "unit", "unit_scale")
            given = {name: options[name] for name in known if name in options}
            super().__init__(*arguments, **given, disable=True)

        def update(self, n: float | None = 1) -> None:
            progress(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Count bytes on disk only."""

        def set_transfer_postfix_str(self, text: str, refresh: bool = False) -> None:
            """Show no rate of the network."""

    return Bar
