"""`autoglm deploy`: applies a manifest, or its short form, to a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from autoglm.api import InvalidSpec, Problem
from autoglm.api.documents import (
    is_profile,
    parse_manifest,
    problems_between,
    profiles_in,
    read_yaml,
)
from autoglm.api.profile import PROFILE_KIND
from autoglm.api.short_form import is_short_form, to_manifest
from autoglm.cli.options import NOT_HEALTHY, examples

if TYPE_CHECKING:
    from autoglm.cli.cluster import Cluster

BAD_MANIFEST = 65
_POLL_SECONDS = 1.0
Manifest = dict[str, Any]


@click.command(
    epilog=examples(
        "autoglm deploy -c config.yaml",
        "autoglm deploy -c config.yaml --name chat --namespace models --dry-run",
        "autoglm deploy -c examples/catalog/qwen3-8b.yaml --wait --timeout 900",
    )
)
@click.option(
    "-c",
    "-f",
    "--config",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Manifest with AutoGLMDeployments, or one short form.",
)
@click.option("--name", default="", help="Name of the resource. [default: from the model's name]")
@click.option("-n", "--namespace", default="", help="Namespace. [default: the kubeconfig's]")
@click.option("--dry-run", is_flag=True, help="Print the resource instead of applying it.")
@click.option("--wait", is_flag=True, help="Wait until the resource is ready.")
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit of --wait.",
)
@click.option(
    "--force-conflicts", is_flag=True, help="Take over fields that other managers applied."
)
@click.option("--kubeconfig", envvar="KUBECONFIG", show_envvar=True, help="Kubeconfig file.")
@click.option("--context", help="Context of the kubeconfig. [default: current]")
def command(
    file: Path,
    name: str,
    namespace: str,
    dry_run: bool,
    wait: bool,
    timeout: float,
    force_conflicts: bool,
    kubeconfig: str | None,
    context: str | None,
) -> int:
    """Create or update deployments on Kubernetes, from a manifest or its short form."""
    try:
        manifests = manifests_in(file.read_text(encoding="utf-8"), str(file), name, namespace)
    except (InvalidSpec, UnicodeDecodeError) as error:
        click.echo(str(error), err=True)
        return BAD_MANIFEST
    if dry_run:
        click.echo(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True), nl=False)
        return 0
    from autoglm.cli.cluster import Cluster

    for profile in profiles_in(file.read_text(encoding="utf-8"), str(file)):
        notice = (
            f"{PROFILE_KIND} {profile.metadata.name} is not applied, since it concerns the whole "
            f"cluster; kubectl apply -f {file} does it"
        )
        click.echo(notice, err=True)
    cluster = Cluster(kubeconfig, context)
    for manifest in manifests:
        manifest["metadata"].setdefault("namespace", cluster.namespace)
    for manifest in manifests:
        uri = manifest["spec"]["model"].get("uri") or ""
        if uri.startswith(("./", "../")):
            notice = (
                f"{manifest['metadata']['name']}: spec.model.uri = {uri} is a path on this "
                "machine, which pods don't have; set a hub name, or a path on a volume of the pods"
            )
            click.echo(notice, err=True)
        cluster.apply(manifest, dry_run=False, force=force_conflicts)
        click.echo(f"{_subject(manifest)} applied")
    if not wait:
        return 0
    until = time.monotonic() + timeout
    return max([_wait(cluster, manifest, until) for manifest in manifests], default=0)


def manifests_in(text: str, source: str, name: str, namespace: str) -> list[Manifest]:
    """Return the manifests to apply. Raises InvalidSpec with all problems, also of profiles."""
    documents = [document for document in read_yaml(text, source) if document is not None]
    profiles = profiles_in(text, source)
    documents = [document for document in documents if not is_profile(document)]
    if not documents and not profiles:
        message = "is empty; it must have a manifest or a short form"
        raise InvalidSpec([Problem("", message, source=source)])
    if name and len(documents) > 1:
        message = f"has {len(documents)} documents; omit --name, which is for one"
        raise InvalidSpec([Problem("", message, source=source)])
    problems: list[Problem] = []
    manifests: list[Manifest] = []
    for document in documents:
        try:
            manifests.append(_manifest(document, name, namespace))
        except InvalidSpec as error:
            problems += error.problems
    if not problems:
        problems += problems_between(parse_manifest(manifest) for manifest in manifests)
    if problems:
        raise InvalidSpec([replace(problem, source=source) for problem in problems])
    return manifests


def _manifest(document: Any, name: str, namespace: str) -> Manifest:
    if is_short_form(document):
        document = to_manifest(document, name)
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    if isinstance(metadata, Mapping):
        given = metadata.get("namespace")
        if namespace and given not in (None, namespace):
            message = f"differs from --namespace {namespace}; omit one of the two"
            raise InvalidSpec([Problem("metadata.namespace", message, given)])
        named = {"name": name} if name else {}
        placed = {"namespace": namespace} if namespace else {}
        document = {**document, "metadata": {**metadata, **named, **placed}}
    parse_manifest(document)
    # The status is not applied; the API server rejects it.
    return {key: value for key, value in document.items() if key != "status"}


def _wait(cluster: Cluster, manifest: Manifest, until: float) -> int:
    """Print each change of the progress; return NOT_HEALTHY if it is not ready in time."""
    from autoglm.cli.cluster import ClusterError

    def poll() -> Progress:
        try:
            return progress_of(cluster.read(manifest))
        except ClusterError as error:
            if not error.is_temporary:
                raise
            return Progress(f"{error.reason}: {error.message}")

    progress = Progress("not read yet")
    for progress in follow(poll, until, time.monotonic, time.sleep):
        click.echo(f"{_subject(manifest)}: {progress.line}")
    if progress.is_ready:
        return 0
    advice = "" if progress.is_hopeless else "; still in progress, see `kubectl describe agd`"
    click.echo(f"NotReady: {_subject(manifest)}: {progress.line}{advice}", err=True)
    return NOT_HEALTHY


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a resource, in one line."""

    line: str
    is_ready: bool = False
    is_hopeless: bool = False


def follow(
    poll: Callable[[], Progress],
    until: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Progress]:
    """Yield each change of the progress, until the resource is ready, hopeless or out of time."""
    last = None
    while True:
        progress = poll()
        if progress != last:
            yield progress
        last = progress
        if progress.is_ready or progress.is_hopeless or now() >= until:
            return
        sleep(min(_POLL_SECONDS, max(0.0, until - now())))


def progress_of(resource: Mapping[str, Any]) -> Progress:
    """Return the progress that a resource's status reports for its current spec."""
    status, generation = resource.get("status") or {}, resource["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return Progress(
            "waiting for the operator; check that it is installed and watches this namespace"
        )
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    ready = conditions.get("Ready", {})
    counts = f"{status.get('readyReplicas', 0)} of {resource['spec'].get('replicas', 1)} ready"
    line = f"{status.get('phase') or 'Pending'}, {counts}"
    if ready.get("status") == "True":
        at = f" at {status['url']}" if status.get("url") else ""
        return Progress(f"{line}{at}", is_ready=True)
    why = f": {ready['reason']}: {ready.get('message', '')}" if ready.get("reason") else ""
    return Progress(line + why.rstrip(": "), is_hopeless=ready.get("reason") == "InvalidSpec")


def _subject(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"autoglmdeployment {metadata['namespace']}/{metadata['name']}"
