"""`autoglm precheck`: checks whether a cluster or this machine can run a deployment.

Exits with 1 if a check fails, so that a script stops before it deploys.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from autoglm.api import InvalidSpec, parse
from autoglm.cli.cluster import ClusterError
from autoglm.cli.commands.deploy import BAD_MANIFEST, manifests_in
from autoglm.cli.options import Where, cluster_options, document_option, examples
from autoglm.cli.output import document
from autoglm.cli.precheck import machine
from autoglm.cli.precheck.cluster import checks as cluster_checks
from autoglm.cli.precheck.facts import gather
from autoglm.cli.precheck.view import Check, precheck_text
from autoglm.cli.screen import canvas_of_terminal, steps
from autoglm.local.manifest import read

FAILED = 1


@click.command(
    epilog=examples(
        "autoglm precheck",
        "autoglm precheck -n models -f chat.yaml",
        "autoglm precheck --local -f examples/tiny-glm.yaml",
        "autoglm precheck -o json | jq '.checks[] | select(.outcome == \"fail\")'",
    )
)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Manifest to check, for a cluster also in its short form.",
)
@click.option("--local", is_flag=True, help="Check this machine, for `autoglm up`.")
@cluster_options
@document_option
def command(where: Where, file: Path | None, local: bool, output: str) -> int:
    """Check the prerequisites of a deployment and show remedies.

    Exits with 1 if a check fails; warnings are not failures.
    """
    if where.is_everywhere:
        raise click.UsageError("-A: a deployment has one namespace; use -n NAMESPACE")
    if local and where.is_named:
        raise click.UsageError("--local excludes -n, --context and --kubeconfig")
    try:
        with steps() as say:
            if local:
                found = machine.checks(machine.observe(read([file]) if file else (), say))
            else:
                found = _cluster(where, file, say)
    except (InvalidSpec, UnicodeDecodeError) as error:
        click.echo(str(error), err=True)
        return BAD_MANIFEST
    has_failed = any(check.outcome == "fail" for check in found)
    if output == "text":
        page = precheck_text(found, canvas_of_terminal())
    else:
        page = document({"ok": not has_failed, "checks": [asdict(c) for c in found]}, output)
    click.echo(page, nl=False)
    return FAILED if has_failed else 0


def _cluster(where: Where, file: Path | None, say: machine.Say) -> tuple[Check, ...]:
    manifests: list[dict[str, Any]] = []
    if file:
        manifests = manifests_in(file.read_text(encoding="utf-8"), str(file), "", where.namespace)
    given = {manifest["metadata"].get("namespace", "") for manifest in manifests} - {""}
    if len(given) > 1:
        names = ", ".join(sorted(given))
        raise click.UsageError(f"the manifest has several namespaces ({names}); split it")
    try:
        cluster = where.open()
        namespace = where.namespace or next(iter(given), "") or cluster.namespace
        for manifest in manifests:
            manifest["metadata"].setdefault("namespace", namespace)
        facts = gather(cluster, namespace, manifests, say)
    except ClusterError as error:
        # A message ends with its remedy.
        problem, _, remedy = error.message.rpartition("; ")
        return (Check("cluster", "fail", problem or remedy, remedy if problem else ""),)
    return cluster_checks(facts, [parse(manifest) for manifest in manifests])
