"""Real Kubernetes nodes on one machine, with their control plane. Linux and root, no Docker.

kubelet, containerd, kube-proxy, CoreDNS and metrics-server run in one private namespace, so that
nothing of them is seen outside or stays behind. Ports and addresses are fixed in there; the
machine's own network cannot be reached from pods, nor a node from the machine. Two nodes are enough
to drain one.

    with Node(directory) as node:
        node.import_image(archive)
        node.kubectl("apply", "-f", "model.yaml")
        node.run("curl", "http://10.96.12.34:8080/health")
        with node.entered():
            ...  # this thread's connections, and those of threads it starts, are the nodes'
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.kube import disk, programs
from tests.support.kube.commands import SERVICE_NETWORK
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.daemon import output
from tests.support.kube.images import program_image
from tests.support.kube.namespace import Namespace
from tests.support.kube.node_files import PAUSE, NodeFiles

PROGRAMS = ("kubelet", "kube-proxy", "coredns", "metrics-server", "pause")
PORTS = (6443, 2379, 2380)
_PACKAGED = ("buildah", "containerd", "conntrack", "ctr", "ip", "nft", "runc", "unshare")
_WAY_OUT = "scripts/kube_tools --node"
_ADDONS = Path(__file__).with_name("addons.yaml")
_IMAGES = {
    PAUSE: "pause",
    "autoglm-test/coredns:1": "coredns",
    "autoglm-test/metrics-server:1": "metrics-server",
}


def lacking(places: Iterable[disk.Place] | None = None) -> str:
    """Why no node can run here, and the way out; empty when it can.

    `places` is where disk is needed: by default what the ring `cluster` writes.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real node needs Linux and root"
    if shortage := disk.missing(disk.places() if places is None else places):
        return shortage
    if missing := [name for name in _PACKAGED if not shutil.which(name)]:
        return f"{', '.join(missing)} not installed: run {_WAY_OUT}"
    return programs.lacking((*programs.CONTROL_PLANE, *PROGRAMS), _WAY_OUT)


@dataclass
class Node(ControlPlane):
    """A `ControlPlane` with nodes that run what they are given: node-0, node-1 ..."""

    nodes: int = 1
    ports: Sequence[int] = PORTS
    advertised: str = "172.30.0.1"
    namespace: Namespace = field(init=False)
    _nodes: list[NodeFiles] = field(default_factory=list, init=False)

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command on the nodes' network; what it prints. Raises ClusterFailed."""
        return output([*self.client_prefix, *command], text)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """The calling thread, and threads and processes it starts, are on the nodes' network."""
        return self.namespace.entered()

    def helm(self, *arguments: str) -> str:
        """What helm prints."""
        helm = (programs.program("helm"), f"--kubeconfig={self.kubeconfig}")
        return self.run(*helm, *arguments)

    def import_image(self, archive: Path, *indexes: int) -> None:
        """Makes the images of a docker or OCI archive known to these nodes; to all by default."""
        for node in [self._nodes[index] for index in indexes] or self._nodes:
            output([*self.prefix, *node.ctr, "images", "import", str(archive)])

    def tag_image(self, image: str, other: str) -> None:
        """Another name for a known image, on all nodes; names as in `docker.io/library/app:1`."""
        for node in self._nodes:
            output([*self.prefix, *node.ctr, "images", "tag", "--force", image, other])

    def start(self) -> None:
        cgroups = [f"autoglm-{secrets.token_hex(4)}" for _ in range(self.nodes)]
        kubelets = self.directory / "kubelets"
        self.namespace = Namespace(cgroups, self.addresses()[1:], SERVICE_NETWORK, kubelets)
        self.namespace.start()
        self.prefix = self.namespace.prefix()
        self.client_prefix = self.namespace.network_prefix()
        super().start()
        for index, address in enumerate(self.namespace.addresses):
            self._nodes.append(NodeFiles(self.layout, index, address, cgroups[index]))
        self._start_containerd()
        self._import_addons()
        self._start_kubelets()
        self.kubectl("apply", "--server-side", "-f", str(_ADDONS))
        self.wait("the node", self._is_ready)

    def stop(self) -> None:
        try:
            self.namespace.stop()
        finally:
            super().stop()

    def addresses(self) -> Sequence[str]:
        """Where the API server and kubelets can be reached."""
        return ("127.0.0.1", *(f"172.30.0.{index + 1}" for index in range(self.nodes)))

    def data(self) -> Sequence[Path]:
        """Directories that are not kept when a test has failed."""
        kept = [node.state / "containerd" for node in self._nodes]
        return (*super().data(), *kept, self.directory / "images", self.directory / "kubelets")

    def _start_containerd(self) -> None:
        for node in self._nodes:
            write_files(node.written())
            self.spawn(f"containerd-{node.index}", node.containerd_command())
        for node in self._nodes:
            command = [*self.prefix, *node.ctr, "version"]
            self.wait("containerd", functools.partial(_succeeds, command))

    def _import_addons(self) -> None:
        images = self.directory / "images"
        images.mkdir()
        for name, program in _IMAGES.items():
            executable = Path(programs.program(program)).resolve()
            self.import_image(program_image(name, executable, images / f"{program}.tar"))

    def _start_kubelets(self) -> None:
        for node in self._nodes:
            self.spawn(f"kubelet-{node.index}", node.kubelet_command())
        # One network, and so one set of rules.
        self.spawn("kube-proxy", self._nodes[0].kube_proxy_command())

    def _is_ready(self) -> bool:
        """Raises ClusterFailed with what is not true yet."""
        for what in (
            *(f"node/{node.name}=Ready" for node in self._nodes),
            "deployment/coredns=Available",
            "deployment/metrics-server=Available",
            "apiservice/v1beta1.metrics.k8s.io=Available",
        ):
            name, condition = what.split("=")
            waiting = ("wait", f"--for=condition={condition}", "--timeout=1s", "-n", "kube-system")
            self.kubectl(*waiting, name)
        return True


def _succeeds(command: Sequence[str]) -> bool:
    return bool(output(command))


def write_files(files: Mapping[Path, str | dict[str, Any]]) -> None:
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
