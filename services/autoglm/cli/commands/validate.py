"""`autoglm validate`: checks manifests without a cluster, a model or a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from autoglm.api import InvalidSpec, Problem
from autoglm.api.documents import parse_manifest, problems_between, profiles_in
from autoglm.api.problem import ABSENT
from autoglm.api.profile import PROFILE_KIND, PROFILE_PLURAL
from autoglm.api.rules import at
from autoglm.cli.commands.deploy import BAD_MANIFEST, Manifest, manifests_in
from autoglm.cli.options import document_option, examples
from autoglm.cli.output import document
from autoglm.local.manifest import files_of


@click.command(
    epilog=examples(
        "autoglm validate chat.yaml",
        "autoglm validate manifests/ --output json",
        "kubectl get agd chat -o yaml | autoglm validate -",
    )
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@document_option
def command(files: tuple[str, ...], output: str) -> int:
    """Check manifests, profiles and short forms, without a cluster. FILE may be a directory, or -
    for stdin.

    Exits with 65 if a manifest is invalid.
    """
    try:
        texts = list(_texts(files))
    except (ValueError, OSError) as error:
        raise click.BadParameter(str(error), param_hint="FILES") from error
    manifests, problems = checked(texts)
    if output != "text":
        click.echo(document(_page(manifests, problems), output), nl=False)
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        for manifest in () if problems else manifests:
            click.echo(f"{manifest['metadata']['name']} is valid")
        for line in () if problems else _about_profiles(texts, manifests):
            click.echo(line)
    return BAD_MANIFEST if problems else 0


def _about_profiles(
    texts: Sequence[tuple[str, str]], manifests: Sequence[Manifest]
) -> Iterator[str]:
    """Yield a sentence for each profile in the texts, and for each that only a cluster may have."""
    known = {p.metadata.name for source, text in texts for p in profiles_in(text, source)}
    for name in sorted(known):
        yield f"{PROFILE_KIND} {name} is valid"
    for manifest in manifests:
        name = at(manifest, "spec.profile.name")
        if name and name not in known:
            yield (
                f"{manifest['metadata']['name']}: spec.profile.name = {name} is not in these "
                "manifests, so it is not checked; profiles are a cluster's: kubectl get "
                f"{PROFILE_PLURAL}"
            )


def checked(texts: Sequence[tuple[str, str]]) -> tuple[list[Manifest], list[Problem]]:
    """Return the manifests in texts, each with its source, and the problems of all. Pure."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for source, text in texts:
        try:
            manifests += manifests_in(text, source, "", "")
        except InvalidSpec as error:
            problems += [replace(each, source=each.source or source) for each in error.problems]
    if len(texts) > 1 and not problems:
        problems += problems_between(parse_manifest(manifest) for manifest in manifests)
    return manifests, problems


def _texts(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in files:
        if name == "-":
            yield "stdin", sys.stdin.read()
            continue
        for file in files_of([Path(name)]):
            yield str(file), file.read_text(encoding="utf-8")


def _page(manifests: Sequence[Manifest], problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        "valid": not problems,
        "resources": [manifest["metadata"]["name"] for manifest in manifests],
        "problems": [
            {
                "source": problem.source,
                "path": problem.path,
                "value": None if problem.value is ABSENT else problem.value,
                "message": problem.message,
            }
            for problem in problems
        ],
    }
