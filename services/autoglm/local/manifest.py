"""Reads manifests, watches their files, and translates resources into processes.

`up` runs them; flags that processes share with the operator's pods are in `api.engine_flags`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from watchfiles import Change, awatch

from autoglm.api import AutoGLMDeployment, InvalidSpec, Problem
from autoglm.api.documents import (
    is_profile,
    nothing_in,
    problems_between,
    read_yaml,
    resources_of,
)
from autoglm.api.engine_flags import engine_flags, flags
from autoglm.api.profile import parse_profile
from autoglm.api.short_form import is_short_form, to_manifest
from autoglm.api.spec.profile import ProfileSpec
from autoglm.api.uri import problem_here
from autoglm.local.companions import (
    Variable,
    flattened,
    is_companion,
    missing,
    skipped,
    variables,
)
from autoglm.local.gpus import uses_gpus
from autoglm.local.planning import Addresses, Process, Workload

# No resource can have this name, since names start with a letter.
GATEWAY = "_gateway"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Text:
    """A manifest that is not in a file; its paths are relative to `directory`."""

    text: str
    name: str = "standard input"
    directory: Path = Path()


Source = Path | Text


@dataclass(frozen=True, slots=True)
class Placed:
    """A resource, and the directory of its manifest, which its paths are relative to."""

    resource: AutoGLMDeployment
    directory: Path
    referenced: tuple[Variable, ...] = ()
    """Its variables with values of Secrets and ConfigMaps of the manifests."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """The resources of all manifests, and notes on what has no effect here."""

    placed: tuple[Placed, ...]
    notes: tuple[str, ...] = ()


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and the manifests in the directories: `*.yaml`, `*.yml` and `*.json`.

    Raises ValueError for a directory without any.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
        if not found:
            raise ValueError(f"{path} has no file *.yaml, *.yml or *.json; name the manifests")
        files += found
    return files


def read(sources: Sequence[Source]) -> list[Placed]:
    """Return the resources of all manifests. Raises InvalidSpec with all problems of all."""
    return list(read_all(sources).placed)


def read_all(sources: Sequence[Source]) -> Manifests:
    """Return the resources of all manifests, and notes. Raises InvalidSpec as `read` does.

    Objects of other kinds are skipped, and those that `valueFrom` names are read, of any manifest.
    """
    placed: list[Placed] = []
    companions: list[tuple[str, Mapping[str, Any]]] = []
    problems: list[Problem] = []
    opened: list[tuple[str, Path, list[Any]]] = []
    for source in sources:
        try:
            text, name, directory = _opened(source)
            documents = [_expanded(each) for each in flattened(read_yaml(text, name))]
        except InvalidSpec as error:
            named = _name_of(source)
            problems += [replace(each, source=each.source or named) for each in error.problems]
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem("", f"can't be read: {error}", source=_name_of(source)))
        else:
            opened.append((name, directory, documents))
    profiles = _profiles([document for *_, documents in opened for document in documents])
    for name, directory, documents in opened:
        companions += [(name, each) for each in documents if is_companion(each)]
        own = [None if is_companion(each) else each for each in documents]
        resources, bad = resources_of(own, name, profiles)
        problems += bad
        placed += [Placed(resource, directory) for resource in resources]
    if not placed and not problems:
        problems = [nothing_in(", ".join(map(_name_of, sources)))]
    if len(sources) > 1 and not problems:
        problems = problems_between(p.resource for p in placed)
    for index, each in enumerate(placed):
        found, bad = variables(each.resource, [companion for _, companion in companions])
        placed[index] = replace(each, referenced=tuple(found))
        bad = [*bad, *_uri_problems(each.resource)]
        problems += [replace(one, source=each.resource.name) for one in bad]
    if problems:
        raise InvalidSpec(problems)
    served = [each.resource for each in placed]
    notes = [(name, skipped(companion, served)) for name, companion in companions]
    return Manifests(tuple(placed), tuple(f"{name}: {note}" for name, note in notes if note))


def _uri_problems(resource: AutoGLMDeployment) -> Iterator[Problem]:
    """Yield a problem for each URI that only pods load."""
    model = resource.spec.model
    uris = {"uri": model.uri, "tokenizer": model.tokenizer}
    uris |= {f"adapters[{index}].uri": a.uri for index, a in enumerate(model.adapters)}
    for field, uri in uris.items():
        if uri and (why := problem_here(uri)):
            yield Problem(f"spec.model.{field}", why, uri)


def _profiles(documents: Iterable[Any]) -> dict[str, ProfileSpec]:
    """Return the valid profiles of all manifests; `resources_of` reports the others."""
    found: dict[str, ProfileSpec] = {}
    for document in filter(is_profile, documents):
        with contextlib.suppress(InvalidSpec):
            profile = parse_profile(document)
            found[profile.metadata.name] = profile.spec
    return found


def _opened(source: Source) -> tuple[str, str, Path]:
    """Return the text of a manifest, its name and its directory. Raises OSError."""
    if isinstance(source, Text):
        return source.text, source.name, source.directory.resolve()
    return source.read_text(encoding="utf-8"), str(source), source.resolve().parent


def _name_of(source: Source) -> str:
    return source.name if isinstance(source, Text) else str(source)


def _expanded(document: Any) -> Any:
    return to_manifest(document) if is_short_form(document) else document


async def saves(sources: Sequence[Source]) -> AsyncIterator[None]:
    """Yield whenever one of the files has been written."""
    files = [source for source in sources if isinstance(source, Path)]
    if not files:
        return
    # Directories are watched, since editors replace files, which ends a watch on the file itself.
    paths = {str(file.resolve()) for file in files}
    directories = {file.resolve().parent for file in files}

    def is_ours(change: Change, path: str) -> bool:
        return path in paths and change is not Change.deleted

    async for _ in awatch(*directories, watch_filter=is_ours, recursive=False, debounce=200):
        yield


def model_workload(placed: Placed, program: Sequence[str], traces: str | None) -> Workload:
    """Return the inference processes of a resource. `traces` overrides the resource's setting."""
    spec = placed.resource.spec
    process = Process(
        argv=(*program, "inference", *inference_flags(placed, traces)),
        env=tuple(_environment(placed)),
        grace_seconds=spec.drain.grace_period_seconds,
        stall_seconds=spec.startup.stall_seconds,
        gpus=gpus_of(placed.resource),
    )
    return Workload(placed.resource.name, placed.resource.desired_replicas, process)


def _environment(placed: Placed) -> Iterator[tuple[str, str]]:
    """Yield the variables of a process; others of the manifest are those of this environment."""
    referenced = {variable.name: variable.value for variable in placed.referenced}
    for variable in placed.resource.spec.engine.env:
        value = referenced.get(variable.name, variable.value)
        if value is not None:
            yield variable.name, value


def gpus_of(resource: AutoGLMDeployment) -> int:
    """Return the GPUs that a replica needs; 0 where it uses none or names its own."""
    engine = resource.spec.engine
    if engine.type != "vllm" or not uses_gpus(variable.name for variable in engine.env):
        return 0
    return engine.parallelism.devices


def gateway_workload(
    placed: Iterable[Placed],
    program: Sequence[str],
    addresses: Addresses,
    endpoints_file: Path,
    user_flags: Sequence[str] = (),
) -> Workload:
    """Return the gateway for all resources, with the longest of their grace periods."""
    grace = max(p.resource.spec.drain.grace_period_seconds for p in placed)
    options = flags(("endpoints-file", endpoints_file), ("shutdown-grace-seconds", grace))
    process = Process(
        (*program, "gateway", *options, *user_flags),
        addresses=addresses,
        grace_seconds=grace,
        is_routed=False,
    )
    return Workload(GATEWAY, 1, process)


def inference_flags(placed: Placed, traces: str | None) -> tuple[str, ...]:
    """Return all flags of an inference process except its addresses."""
    own = engine_flags(placed.resource, lambda uri: located(uri, placed.directory))
    tracing = placed.resource.spec.observability.tracing
    if traces is not None or tracing.endpoint is None:
        return (*own, *flags(("traces", traces)))
    ratio = tracing.sample_ratio
    return (*own, *flags(("traces", f"otlp:{tracing.endpoint}"), ("trace-sample-ratio", ratio)))


def located(uri: str | None, directory: Path) -> str | None:
    """Make a path that is relative to the manifest absolute; return other uris unchanged."""
    if uri is None or not uri.startswith(("./", "../")):
        return uri
    return str((directory / uri).resolve())


def notices(placed: Placed, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each field of the resource that takes effect only on a cluster, and for
    each variable whose value is neither in the manifests nor in the environment."""
    resource, spec = placed.resource, placed.resource.spec
    facts = {
        "spec.scaling": (spec.scaling, f"runs {resource.desired_replicas} replicas (minReplicas)"),
        "spec.engine.image": (spec.engine.image, "runs the installed package"),
        "spec.resources": (spec.resources.requests or spec.resources.limits, "sets no limits"),
        "spec.template": (spec.template, "has no pod template"),
        "spec.profile": (
            spec.profile,
            "runs without it; add the AutoGLMProfile to the manifests to use its engine arguments",
        ),
    }
    sentences = [
        f"{resource.name}: {path} takes effect on Kubernetes; `autoglm up` {instead}"
        for path, (is_set, instead) in facts.items()
        if is_set
    ]
    absent = missing(resource, placed.referenced, environment)
    return sentences + [f"{resource.name}: {problem}" for problem in absent]
