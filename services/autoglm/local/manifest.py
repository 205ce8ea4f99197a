"""Reads manifests, watches their files, and translates resources into processes.

`up` runs them; flags that processes share with the operator's pods are in `api.engine_flags`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchfiles import Change, awatch

from autoglm.api import AutoGLMDeployment, InvalidSpec, Problem
from autoglm.api.documents import load_documents, problems_between, profiles_in
from autoglm.api.engine_flags import engine_flags, flags
from autoglm.api.spec.profile import ProfileSpec
from autoglm.local.gpus import uses_gpus
from autoglm.local.planning import Addresses, Process, Workload

# No resource can have this name, since names start with a letter.
GATEWAY = "_gateway"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Placed:
    """A resource and the directory of its manifest, which its paths are relative to."""

    resource: AutoGLMDeployment
    directory: Path


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


def read(files: Sequence[Path]) -> list[Placed]:
    """Return the resources of all files. Raises InvalidSpec with all problems of all files."""
    placed: list[Placed] = []
    problems: list[Problem] = []
    texts: dict[Path, str] = {}
    for file in files:
        try:
            texts[file] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem("", f"can't be read: {error}", source=str(file)))
    profiles = _profiles(texts)
    for file, text in texts.items():
        try:
            resources = load_documents(text, str(file), profiles)
        except InvalidSpec as error:
            problems += error.problems
        else:
            placed += [Placed(resource, file.resolve().parent) for resource in resources]
    if not placed and not problems:
        message = "contains no AutoGLMDeployment; examples/ has some to start from"
        problems = [Problem("", message, source=", ".join(map(str, files)))]
    if len(files) > 1 and not problems:
        problems = problems_between(p.resource for p in placed)
    if problems:
        raise InvalidSpec(problems)
    return placed


def _profiles(texts: Mapping[Path, str]) -> dict[str, ProfileSpec]:
    """Return the valid profiles of all files; `load_documents` reports the others."""
    found: dict[str, ProfileSpec] = {}
    for file, text in texts.items():
        with contextlib.suppress(InvalidSpec):
            found |= {p.metadata.name: p.spec for p in profiles_in(text, str(file))}
    return found


async def saves(files: Sequence[Path]) -> AsyncIterator[None]:
    """Yield whenever one of the files has been written."""
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
        env=tuple((e.name, e.value) for e in spec.engine.env if e.value is not None),
        grace_seconds=spec.drain.grace_period_seconds,
        gpus=gpus_of(placed.resource),
    )
    return Workload(placed.resource.name, placed.resource.desired_replicas, process)


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


def notices(resource: AutoGLMDeployment) -> list[str]:
    """Return a sentence for each field of the resource that takes effect only on a cluster."""
    spec = resource.spec
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
    inherited = [variable.name for variable in spec.engine.env if variable.value_from is not None]
    if inherited:
        names = ", ".join(inherited)
        sentences.append(f"{resource.name}: {names} must be set in this shell's environment")
    return sentences
