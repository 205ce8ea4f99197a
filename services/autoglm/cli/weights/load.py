"""`autoglm load`: fills a directory with models, as the loader of a cluster's cache does.

Run by the operator's Jobs and init containers, in the image of the replicas. Of several processes
on one volume one downloads a model, and the others wait for it and find it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from autoglm.api.uri import HUBS, directory_of, location_of
from autoglm.cli.options import examples
from autoglm.cli.weights.download import HubModel, verified
from autoglm.cli.weights.listing import amount
from autoglm.cli.weights.modelscope import ModelScopeModel, on_a_hub
from autoglm.cli.weights.stores import StoredModel, in_store
from autoglm.common.process import ExitCode
from autoglm.inference.diagnosis import MAX_MESSAGE_BYTES
from autoglm.inference.startup import Sample, Stage, Startup

_MARKER: Final = ".autoglm-loaded.json"
_LINE_SECONDS: Final = 10.0


class CannotLoad(Exception):
    """Why a model cannot be loaded, in one sentence with the remedy."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __str__(self) -> str:
        is_known = self.exit_code in set(ExitCode)
        reason = ExitCode(self.exit_code).reason if is_known else "LoadFailed"
        return f"{reason}: {self.args[0]}"


class Meter:
    """Counts bytes, for the page of the progress and the log."""

    def __init__(self, now: float) -> None:
        self.done = self.total = 0
        self._startup = Startup(now)
        self._logged = now

    def add(self, size: int) -> None:
        """Count bytes, fewer than 0 where some have to come again."""
        now = time.monotonic()
        self.done += size
        self._startup.observe(Sample(Stage.DOWNLOAD, cached_bytes=self.done), now)
        if now - self._logged >= _LINE_SECONDS:
            self._logged = now
            rate = self._startup.rate(now) / 1e6
            _log(f"download {amount(self.done)} of {amount(self.total)} at {rate:.1f} MB/s")

    def page(self) -> dict[str, Any]:
        rate = round(self._startup.rate(time.monotonic()))
        done = max(0, self.done)
        return {"done_bytes": done, "total_bytes": self.total, "bytes_per_second": rate}


@dataclass(frozen=True, slots=True)
class Source:
    """A model to load, and its directory."""

    uri: str
    revision: str
    directory: Path

    @property
    def is_loaded(self) -> bool:
        return (self.directory / _MARKER).is_file()


@click.command(
    epilog=examples(
        "autoglm load --directory /cache --uri Qwen/Qwen3-8B",
        "autoglm load --directory /cache --uri s3://models/qwen3-8b --metrics-address :9090",
    )
)
@click.option("--directory", required=True, metavar="DIR", help="Where each model gets its own.")
@click.option("--uri", "uris", multiple=True, required=True, help="A model. May be repeated.")
@click.option("--revision", default="", help="Branch, tag or commit of the first one on its hub.")
@click.option(
    "--metrics-address",
    default="",
    envvar="AUTOGLM_METRICS_ADDRESS",
    metavar="HOST:PORT",
    help="Where to serve /progress. [default: nowhere]",
)
@click.option("--termination-message-file", default="/dev/termination-log", hidden=True)
def command(
    directory: str,
    uris: tuple[str, ...],
    revision: str,
    metrics_address: str,
    termination_message_file: str,
) -> int:
    """Fill DIR with models, for the cache of a cluster."""
    # As the first process of a container it has no default handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    revisions = [revision, *("" for _ in uris[1:])]
    root = Path(directory)
    sources = [
        Source(uri, of, root / directory_of(uri, of or None))
        for uri, of in zip(uris, revisions, strict=True)
    ]
    meter = Meter(time.monotonic())
    try:
        with _served(metrics_address, meter):
            load(sources, meter)
    except CannotLoad as error:
        _log(str(error))
        _publish(str(error), Path(termination_message_file))
        return error.exit_code
    return 0


def load(sources: Sequence[Source], meter: Meter) -> None:
    """Load what is not loaded yet. Raises CannotLoad."""
    with _in_one_sentence():
        for source in sources:
            source.directory.mkdir(parents=True, exist_ok=True)
        for source in sources:
            with _locked(source.directory):
                if source.is_loaded:
                    _log(f"{source.uri} is in {source.directory}")
                    continue
                _load(source, meter)


def _load(source: Source, meter: Meter) -> None:
    found = _listed(source)
    listing = found.listing
    for line in (*listing.lines(), *listing.warnings()):
        _log(line)
    free = shutil.disk_usage(source.directory).free
    if listing.missing > free:
        message = (
            f"{source.uri} needs {amount(listing.missing)} more, and the volume has {amount(free)} "
            "free; raise spec.model.cache.size, or free space on the volume"
        )
        raise CannotLoad(message, ExitCode.DISK_FULL)
    meter.total += listing.missing
    path = found.fetch(meter.add)
    verified(listing.model, listing.files, path, lambda _: None)
    about = {"uri": source.uri, "revision": getattr(found, "commit", ""), "bytes": listing.total}
    marker = source.directory / f"{_MARKER}.partial"
    marker.write_text(json.dumps(about), encoding="utf-8")
    marker.replace(source.directory / _MARKER)
    _log(f"{source.uri} is loaded: {amount(listing.total)} in {source.directory}")


def _listed(source: Source) -> HubModel | ModelScopeModel | StoredModel:
    location = location_of(source.uri)
    if location.scheme in HUBS:
        return on_a_hub(source.uri, source.revision, str(source.directory))
    return in_store(source.uri, location.scheme, source.directory)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the kernel releases with the process."""
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log(f"waiting for another loader of {directory}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _served(address: str, meter: Meter) -> Iterator[None]:
    """Serve the progress meanwhile."""
    if not address:
        yield
        return
    from autoglm.common.admin_server import AdminServer

    server = AdminServer(address, lambda: (True, {}), pages={"/progress": meter.page})
    try:
        yield
    finally:
        server.close()


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn errors into CannotLoad; those of the disk are recognized by their number."""
    try:
        yield
    except click.ClickException as error:
        if found := _of_disk(error.__cause__):
            raise found from error
        raise CannotLoad(error.message, error.exit_code) from error
    except OSError as error:
        raise (_of_disk(error) or CannotLoad(str(error), 1)) from error


def _of_disk(error: BaseException | None) -> CannotLoad | None:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        message = f"the volume is full ({error}); raise spec.model.cache.size, or free space on it"
        return CannotLoad(message, ExitCode.DISK_FULL)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        message = (
            f"the volume cannot be written ({error}); let user 10001 write it (on a node: chown "
            "10001), or name another in spec.model.cache"
        )
        return CannotLoad(message, ExitCode.BAD_SETTINGS)
    return None


def _publish(text: str, file: Path) -> None:
    """Write it to the file that Kubernetes reads, if there is one."""
    if file.exists() or (file.parent.is_dir() and file.parent != Path("/dev")):
        file.write_text(text.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore"))


def _log(text: str) -> None:
    print(f"autoglm load: {text}", file=sys.stderr, flush=True)
