"""`autoglm pull`: fetches a model before it is served, from the hub or an object store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from autoglm.api.uri import HUBS, PATH, location_of
from autoglm.cli.options import examples, output_option
from autoglm.cli.output import print_json
from autoglm.cli.weights.download import HubModel, verified
from autoglm.cli.weights.listing import needs_own_code
from autoglm.cli.weights.meter import metered
from autoglm.cli.weights.modelscope import ModelScopeModel, on_a_hub
from autoglm.cli.weights.stores import OTHERS, STORES, StoredModel, in_store
from autoglm.common.process import ExitCode
from autoglm.inference.disk import disk_of

Source = HubModel | ModelScopeModel | StoredModel


@click.command(
    epilog=examples(
        "autoglm pull Qwen/Qwen3-8B",
        "autoglm pull hf://zai-org/GLM-4-9B-0414 --revision main --dry-run",
        "autoglm pull ms://Qwen/Qwen3-8B@master",
        "autoglm pull s3://models/qwen3-8b --to /models/qwen3-8b",
    )
)
@click.argument("model")
@click.option(
    "--revision", default="", help="Branch, tag or commit on the hub, for ms:// also @REVISION."
)
@click.option(
    "--to",
    "directory",
    default="",
    metavar="DIR",
    help="Directory to write to. [default for the hub: its local cache, which `serve` reads]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be fetched; write nothing.")
@click.option("--verify/--no-verify", default=True, help="Compare checksums. [default: verify]")
@output_option
def command(
    model: str, revision: str, directory: str, dry_run: bool, verify: bool, output: str
) -> int:
    """Fetch MODEL: ORG/NAME or hf://ORG/NAME on the Hugging Face hub, ms://ORG/NAME[@REVISION] on
    ModelScope, or a directory in a store (s3://, gs://, az://).

    Only the files that vLLM loads. Run again, it fetches what is missing.
    """
    found = _listed(model, revision, directory)
    listing = found.listing
    if output == "text":
        for line in listing.lines():
            click.echo(line, err=True)
    for warning in listing.warnings():
        click.echo(f"Warning: {warning}", err=True)
    existing, free = disk_of(found.root)
    if why := listing.too_large(free, str(existing)):
        click.echo(f"Error: {why}", err=True)
        return ExitCode.DISK_FULL
    if dry_run:
        if output == "json":
            print_json(listing.page() | {"freeBytes": free})
        return 0
    path = _fetch(found, verify)
    if output == "json":
        print_json(listing.page() | {"path": str(path)})
    else:
        click.echo(str(path))
        served = str(path) if directory else listing.model
        click.echo(f"Serve it: autoglm serve {served}", err=True)
    return 0


def _listed(model: str, revision: str, directory: str) -> Source:
    where, root = location_of(model), Path(directory).expanduser()
    if where.scheme in HUBS:
        if revision and where.repository[1]:
            raise click.UsageError(
                f"{model} has a revision; leave out --revision, or give it alone"
            )
        return on_a_hub(model, revision, str(root) if directory else "")
    if where.scheme == PATH:
        message = f"{model} is a path; serve it as it is: autoglm serve {model}"
        raise click.BadParameter(message, param_hint="MODEL")
    if tool := OTHERS.get(where.scheme):
        raise click.BadParameter(
            f"{where.scheme}:// has a tool of its own: {tool.format(name=where.name)}, then "
            "autoglm serve DIR",
            param_hint="MODEL",
        )
    if where.scheme not in STORES:
        known = ", ".join(f"{each}://" for each in (*HUBS, *STORES))
        raise click.BadParameter(
            f"{where.scheme}:// is not known; it may be {known}", param_hint="MODEL"
        )
    if not directory:
        raise click.UsageError(f"{where.scheme}:// needs --to DIR, the directory to write to")
    if revision:
        raise click.UsageError("--revision is of the hub; stores have none")
    return in_store(model, where.scheme, root)


def _fetch(found: Source, verifies: bool) -> Path:
    listing = found.listing
    with metered("download", listing.missing) as meter:
        path = found.fetch(meter.add)
    if verifies and (stated := sum(bool(file.sha256) for file in listing.files)):
        with metered("verify", listing.total) as meter:
            verified(listing.model, listing.files, path, meter.add)
        click.echo(f"{stated} checksums (SHA-256) agree", err=True)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if code := needs_own_code(listing.model, config if isinstance(config, dict) else {}):
        click.echo(f"Warning: {code}", err=True)
    return path
