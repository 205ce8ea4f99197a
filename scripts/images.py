"""Builds the images of deploy/images, and brings them into a cluster. Needs nothing but Python.

    python3 -m scripts.images build [IMAGE ...]   what `make images` runs
    python3 -m scripts.images load [IMAGE ...]    what `make cluster-load` runs

An IMAGE is a directory of deploy/images, or `all`. `build` takes the first builder that works:
docker, podman, nerdctl, buildah. `load` finds the cluster of kubectl's current context: kind, k3d,
minikube or k3s. With a registry (--registry) images are named after it, and pushed there instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.version import ROOT, current

TAGS = {
    "open-autoglm": "open-autoglm:{}",
    "inference": "open-autoglm-inference:{}",
    "inference-cpu": "open-autoglm-inference:{}-cpu",
}
"""The tag of each directory of deploy/images, for a version."""
ABOUT = {
    "open-autoglm": "gateway, operator, command line, echo engine",
    "inference": "vLLM on NVIDIA GPUs, 20 GB",
    "inference-cpu": "vLLM on CPUs, 5 GB",
}
# What only works where the builder does: its daemon responds, its storage can be used.
_CHECKS = {"docker": "version", "podman": "info", "nerdctl": "info", "buildah": "info"}
_CHECK_SECONDS = 30
_KINDS = ("kind", "k3d", "minikube", "k3s")
_BY_REGISTRY = (
    "make images REGISTRY=registry.example.com/ai, and install with --set image.registry=…"
)


class Problem(Exception):
    """What the user can mend; the text says how."""


@dataclass(frozen=True, slots=True)
class Builder:
    """How images are built: a program, with arguments that go before its subcommands."""

    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    def command(self, *arguments: str) -> list[str]:
        return [*self.words, *arguments]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A local cluster that takes images from archives."""

    kind: str
    name: str = ""


def dockerfile(image: str) -> str:
    """Its path from the repository's root."""
    return f"deploy/images/{image}/Dockerfile"


def reference(image: str, version: str, registry: str = "") -> str:
    """What pods name it. In full: podman and buildah put localhost/ before a short name."""
    return f"{registry.rstrip('/') or 'docker.io/library'}/{TAGS[image].format(version)}"


def build_command(builder: Builder, image: str, name: str, extra: Sequence[str]) -> list[str]:
    # buildah keeps no layers of its own accord.
    layers = ("--layers",) if builder.program == "buildah" else ()
    return builder.command("build", *layers, *extra, "-f", dockerfile(image), "-t", name, ".")


def save_command(builder: Builder, name: str, archive: Path) -> list[str]:
    """Writes an archive that containerd imports."""
    if builder.program == "buildah":
        return builder.command("push", name, f"docker-archive:{archive}:{name}")
    return builder.command("save", "--output", str(archive), name)


def inspect_command(builder: Builder, name: str) -> list[str]:
    """Fails where the image is not there."""
    if builder.program == "buildah":
        return builder.command("inspect", "--type", "image", name)
    return builder.command("image", "inspect", name)


def load_command(cluster: Cluster, archive: Path) -> list[str]:
    match cluster.kind:
        case "kind":
            return ["kind", "load", "image-archive", str(archive), "--name", cluster.name]
        case "k3d":
            return ["k3d", "image", "import", str(archive), "--cluster", cluster.name]
        case "minikube":
            return ["minikube", "image", "load", str(archive), "--profile", cluster.name]
    return ["k3s", "ctr", "images", "import", str(archive)]


def cluster_of(context: str, profiles: Sequence[str], has_k3s: bool) -> Cluster:
    """The cluster of a kubectl context; `profiles` are minikube's. Raises Problem."""
    for kind in ("kind", "k3d"):
        if context.startswith(f"{kind}-"):
            return Cluster(kind, context.removeprefix(f"{kind}-"))
    if context in profiles:
        return Cluster("minikube", context)
    if context == "default" and has_k3s:
        return Cluster("k3s")
    what = f"kubectl's context {context!r}" if context else "kubectl, which has no current context,"
    raise Problem(
        f"{what} is of no kind, k3d, minikube or k3s: choose it by `kubectl config use-context`, "
        f"name it by CLUSTER=kind:NAME, or take a registry: {_BY_REGISTRY}"
    )


def given_cluster(text: str) -> Cluster:
    """A cluster as CLUSTER names it: KIND, or KIND:NAME. Raises Problem."""
    kind, _, name = text.partition(":")
    if kind not in _KINDS:
        raise Problem(f"CLUSTER is {text!r}: write KIND or KIND:NAME with {', '.join(_KINDS)}")
    defaults = {"kind": "kind", "k3d": "k3s-default", "minikube": "minikube", "k3s": ""}
    return Cluster(kind, name or defaults[kind])


def images_of(words: Sequence[str]) -> list[str]:
    """The images that a user names; without any the first. Raises Problem."""
    if unknown := [word for word in words if word not in (*TAGS, "all")]:
        raise Problem(f"no image is called {unknown[0]!r}: there are {', '.join(TAGS)}, and all")
    return list(TAGS) if "all" in words else list(words) or [next(iter(TAGS))]


def builder_of(given: str, works: Callable[[Builder], str]) -> Builder:
    """The builder a user names, or the first that works. `works` returns why one does not, or
    nothing. Raises Problem with what keeps each from working."""
    if given:
        builder = Builder(tuple(shlex.split(given)))
        if builder.program not in _CHECKS:
            raise Problem(f"BUILDER is {given!r}: use one of {', '.join(_CHECKS)}")
        if why := works(builder):
            raise Problem(f"{given}: {why}")
        return builder
    reasons = []
    for program in _CHECKS:
        why = works(Builder((program,)))
        if not why:
            return Builder((program,))
        reasons.append(f"{program}: {why}")
    raise Problem("no image can be built here; start or install one of these:", *reasons)


def _works(builder: Builder) -> str:
    """Why a builder does not work; empty when it does."""
    if not shutil.which(builder.words[0]):
        return "not installed"
    command = builder.command(_CHECKS[builder.program])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_CHECK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _run(command: Sequence[str]) -> None:
    """Runs a command that the user sees, with its output."""
    print("+", shlex.join(command), flush=True)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise Problem(f"{shlex.join(command[:3])} … ended with exit code {code}")


def _output(*command: str) -> str:
    """What a command prints; empty where it cannot."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()


def _minikube_profiles() -> Iterator[str]:
    for profile in json.loads(_output("minikube", "profile", "list", "-o", "json") or "{}").get(
        "valid", ()
    ):
        yield str(profile["Name"])


def build(options: argparse.Namespace) -> None:
    images = images_of(options.images)
    builder = builder_of(options.builder, _works)
    print(f"building with {builder.program}: {', '.join(images)}", flush=True)
    for image in images:
        name = reference(image, current(), options.registry)
        _run(build_command(builder, image, name, shlex.split(options.build_args)))
        if options.registry:
            _run(builder.command("push", name))
        print(f"built {name} ({ABOUT[image]})", flush=True)
    others = [f"  IMAGES={name}  {about}" for name, about in ABOUT.items() if name not in images]
    if others:
        print("There are also:", *others, sep="\n")
    if options.registry:
        print(f"Install with --set image.registry={options.registry}")
    else:
        print("Next: make cluster-load (kind, k3d, minikube, k3s), or a registry:", _BY_REGISTRY)


def load(options: argparse.Namespace) -> None:
    images = images_of(options.images)
    builder = builder_of(options.builder, _works)
    names = [reference(image, current(), options.registry) for image in images]
    for image, name in zip(images, names, strict=True):
        done = subprocess.run(inspect_command(builder, name), capture_output=True, check=False)
        if done.returncode:
            registry = f" REGISTRY={options.registry}" if options.registry else ""
            raise Problem(
                f"{builder.program} has no image {name}: run `make images IMAGES={image}{registry}`"
            )
    if options.registry:
        for name in names:
            _run(builder.command("push", name))
        print(f"Install with --set image.registry={options.registry}")
        return
    if options.cluster:
        cluster = given_cluster(options.cluster)
    else:
        context = _output("kubectl", "config", "current-context")
        has_k3s = shutil.which("k3s") is not None
        cluster = cluster_of(context, list(_minikube_profiles()), has_k3s)
    print(f"loading into {' '.join(filter(None, (cluster.kind, cluster.name)))}", flush=True)
    # k3s' containerd is root's.
    sudo = ["sudo"] if cluster.kind == "k3s" and os.geteuid() else []
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as directory:
        archive = Path(directory) / "image.tar"
        for name in names:
            _run(save_command(builder, name, archive))
            _run([*sudo, *load_command(cluster, archive)])
            archive.unlink(missing_ok=True)
    print("loaded:", *names)
    if cluster.kind == "k3s":
        print("k3s: into this node only; on the others, too, or take a registry where there are.")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts.images", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=("build", "load"))
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--registry", default="", help="name images after it, and push them")
    parser.add_argument("--builder", default="", help="instead of the first that works")
    parser.add_argument("--build-args", default="", help="more arguments of the builder's build")
    parser.add_argument("--cluster", default="", help="KIND or KIND:NAME, instead of the current")
    options = parser.parse_args(arguments)
    try:
        (build if options.verb == "build" else load)(options)
    except Problem as problem:
        print("images:", "\n  ".join(problem.args), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
