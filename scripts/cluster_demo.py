"""Runs README's commands for Kubernetes on a real node of this machine. Linux, as root.

    python -m scripts.cluster_demo           what `make cluster-demo` runs

The node is that of the tests: kubelet and containerd in namespaces of their own, which are gone
afterwards. The image is built by buildah and imported into it in place of `make images` and
`make cluster-load`; every other command is README's, as it is written there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.images import TAGS, dockerfile
from scripts.version import ROOT, current
from tests.support.kube import node as nodes
from tests.support.kube import programs
from tests.support.kube.daemon import ClusterFailed, leashed
from tests.support.kube.images import ARCHIVES, dockerfile_image
from tests.support.kube.node import Node

PROVIDED = ("make images", "make cluster-load")
"""Commands that bring the image into the cluster, which the node's own way takes the place of."""
_HEADING = "## On Kubernetes\n"
_IMAGE = "open-autoglm"
_COMMAND_SECONDS = 400.0


class DemoFailed(Exception):
    """A command did something else than README says; the text says what."""


def readme_commands(readme: str) -> list[str]:
    """The commands of README's first block about Kubernetes, without comments.

    Raises DemoFailed where there is no such block.
    """
    _, _, section = readme.partition(_HEADING)
    block: list[str] = []
    for line in section.splitlines():
        if line.startswith("    "):
            block.append(line.removeprefix("    ").partition("  #")[0].rstrip())
        elif block and line:
            break
    if not block:
        raise DemoFailed(f"README has no commands after {_HEADING.strip()!r}")
    # The lines of one command after its first are indented.
    return re.split(r"\n(?! )", "\n".join(filter(None, block)))


def environment(node: Node) -> dict[str, str]:
    """What README's commands run in: the node's cluster is kubectl's current one."""
    # The node's network has no way out, also not to a proxy.
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    path = f"{programs.directory()}:{kept['PATH']}"
    return {**kept, "PATH": path, "KUBECONFIG": str(node.kubeconfig)}


def run_readme(node: Node) -> list[str]:
    """Runs README's commands on the node; what each printed. Ends what they leave in the
    background. Raises DemoFailed.
    """
    commands = readme_commands((ROOT / "README.md").read_text())
    background: list[subprocess.Popen[str]] = []
    try:
        return [_run(node, c, background) for c in commands if c not in PROVIDED]
    finally:
        for process in background:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(_COMMAND_SECONDS)


def _run(node: Node, command: str, background: list[subprocess.Popen[str]]) -> str:
    print(f"$ {command}", flush=True)
    began = time.monotonic()
    is_background = command.endswith("&")
    process = subprocess.Popen(
        leashed([*node.client_prefix, "bash", "-c", command.removesuffix("&")]),
        cwd=ROOT,
        env=environment(node),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if is_background else subprocess.PIPE,
        stderr=subprocess.DEVNULL if is_background else subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if is_background:
        background.append(process)
        return ""
    try:
        printed, _ = process.communicate(timeout=_COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        raise DemoFailed(f"not done after {_COMMAND_SECONDS:.0f} s: {command}") from error
    print(_indented(printed), f"  ({time.monotonic() - began:.1f} s)", sep="", flush=True)
    if process.returncode:
        raise DemoFailed(f"exit code {process.returncode} of: {command}")
    return printed


def response_of(printed: str) -> str:
    """The text of a chat completion that curl printed. Raises DemoFailed."""
    try:
        return str(json.loads(printed)["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError) as error:
        raise DemoFailed(f"the last command printed no chat completion: {printed!r}") from error


def _indented(text: str, lines: int = 12) -> str:
    kept = text.strip().splitlines()
    if len(kept) > lines:
        kept = [*kept[:lines], f"… {len(kept) - lines} more lines"]
    return "".join(f"  {line}\n" for line in kept)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    print(f"== {what}", flush=True)
    began = time.monotonic()
    yield
    print(f"  ({time.monotonic() - began:.1f} s)", flush=True)


def _demo(directory: Path) -> str:
    with _step("the image, by buildah; the first time takes some minutes"):
        archive = ARCHIVES / f"{_IMAGE}.tar"
        tag = TAGS[_IMAGE].format(current())
        dockerfile_image(tag, ROOT / dockerfile(_IMAGE), archive)
    with contextlib.ExitStack() as stack:
        with _step("a control plane and a node"):
            node = stack.enter_context(Node(directory))
        with _step("the image into the node"):
            node.import_image(archive)
        try:
            return response_of(run_readme(node)[-1])
        except DemoFailed:
            print(_indented(_state_of(node), 40), file=sys.stderr)
            raise


def _state_of(node: Node) -> str:
    with contextlib.suppress(ClusterFailed):
        return node.kubectl("get", "pods,agd,events", "-A", "-o", "wide")
    return "the API server does not respond"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts.cluster_demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(arguments)
    if reason := nodes.lacking(places=()):
        print(f"cluster-demo: {reason}", file=sys.stderr)
        return 1
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="autoglm-cluster-demo-"))
    try:
        response = _demo(directory / "cluster")
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        return 130
    except (DemoFailed, ClusterFailed) as error:
        print(f"cluster-demo: {error}\nLogs are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    print(f"The model responded {response!r}. All of it is gone again.")
    print(f"It took {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
