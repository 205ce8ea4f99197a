"""The command line of `scripts/figures`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from scripts.measure import tables
from scripts.measure.source import Module, read_package
from scripts.measure.spine import trace

_PACKAGE = "services/autoglm"
_HERE = Path(__file__).parents[2]
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(invoke_without_command=True, context_settings=_CONTEXT)
@click.option("--root", type=_DIRECTORY, default=_HERE, help="A checkout; this one by default.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
@click.pass_context
def main(context: click.Context, root: Path, as_json: bool) -> None:
    """Print figures of the source tree: size, structure and words.

    \b
    A file header is what stands before the first statement that is neither a
    docstring nor an import. Code lines leave out docstrings, comments and
    blank lines. Generated modules (_pb2) are left out everywhere.
    A private function is one whose name starts with _, or a function of a
    module's top level that no other module mentions; it is called once when
    its module refers to its name exactly once: by a direct call, or as a value
    (a callback, an entry of a table, a decorator, a property, the target of a
    thread or a task, a hook that several classes define).
    Import rings are strongly connected modules, with imports for type
    checking and imports inside functions.
    Banned words are those that docs/glossary.md replaces, in docstrings,
    comments, messages (strings with a space) and names of functions and
    classes, with no allow-list.

    \b
    Examples:
      scripts/figures
      scripts/figures --json | jq .functions
      scripts/figures --root ../other-checkout
      scripts/figures spine
      scripts/figures compare starlette httpcore
    """
    context.obj = (root.resolve(), as_json)
    if context.invoked_subcommand is None:
        found = tables.figures(read_package(root.resolve() / _PACKAGE))
        _write(found, tables.text(found), as_json)


@main.command()
@click.pass_obj
def spine(options: tuple[Path, bool]) -> None:
    """Trace a unary request through a gateway and an echo pod.

    Starts both as processes on free ports of 127.0.0.1, warms them, and sends
    one chat over REST and one over gRPC. A file is on the spine when more than
    five of its lines execute for the request that do not execute at rest;
    common/, errors and metrics are left out.

    \b
    Examples:
      scripts/figures spine
      scripts/figures --json spine | jq '.[0].steps | length'
    """
    root, as_json = options
    try:
        found = trace(root / _PACKAGE)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    _write([asdict(one) for one in found], tables.spine_text(found), as_json)


@main.command()
@click.argument("names", metavar="PACKAGE...", nargs=-1, required=True)
@click.pass_obj
def compare(options: tuple[Path, bool], names: tuple[str, ...]) -> None:
    """Measure installed packages, and this tree, the same way.

    \b
    Examples:
      scripts/figures compare starlette grpclib kopf httpcore
    """
    root, as_json = options
    modules = {name: installed(name) for name in names}
    found = tables.packages({**modules, "here": read_package(root / _PACKAGE)})
    _write(found, tables.packages_text(found), as_json)


def installed(name: str) -> tuple[Module, ...]:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(f"package {name!r} is not installed: pip install {name}")
    return read_package(Path(spec.submodule_search_locations[0]))


def _write(found: Any, lines: Iterable[str], as_json: bool) -> None:
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
