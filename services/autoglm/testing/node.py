"""A real Kubernetes node on one machine, with its control plane. Needs Linux and root, no Docker.

kubelet, containerd, kube-proxy, CoreDNS and metrics-server run in one private namespace, so that
nothing of them is seen outside or stays behind. Ports and addresses are fixed in there; the
machine's own network cannot be reached from pods, nor the node from the machine.

    with Node(directory) as node:
        node.import_image(archive)
        node.kubectl("apply", "-f", "model.yaml")
        node.run("curl", "http://10.96.12.34:8080/health")
        with node.entered():
            ...  # this thread's connections, and those of threads it starts, are the node's
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm.testing import kube_programs
from autoglm.testing.controlplane import ControlPlane
from autoglm.testing.kube_commands import SERVICE_NETWORK
from autoglm.testing.kube_daemon import output
from autoglm.testing.kube_images import program_image
from autoglm.testing.kube_namespace import NODE_ADDRESS, Namespace
from autoglm.testing.kube_node_files import CTR, NODE_NAME, PAUSE, NodeFiles, import_command

PROGRAMS = ("kubelet", "kube-proxy", "coredns", "metrics-server", "pause")
PORTS = (6443, 2379, 2380)
_PACKAGED = ("buildah", "containerd", "conntrack", "ctr", "ip", "nft", "runc", "unshare")
_WAY_OUT = "scripts/kube_tools --node"
_ADDONS = Path(__file__).with_name("kube_addons.yaml")
_IMAGES = {
    PAUSE: "pause",
    "autoglm-test/coredns:1": "coredns",
    "autoglm-test/metrics-server:1": "metrics-server",
}


def lacking() -> str:
    """Why no node can run here, and the way out; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real node needs Linux and root"
    if missing := [name for name in _PACKAGED if not shutil.which(name)]:
        return f"{', '.join(missing)} not installed: run {_WAY_OUT}"
    return kube_programs.lacking((*kube_programs.CONTROL_PLANE, *PROGRAMS), _WAY_OUT)


@dataclass
class Node(ControlPlane):
    """A `ControlPlane` with one node that runs what it is given."""

    ports: Sequence[int] = PORTS
    advertised: str = NODE_ADDRESS
    namespace: Namespace = field(init=False)
    _files: NodeFiles = field(init=False)

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command on the node's network; what it prints. Raises ClusterFailed."""
        return output([*self.client_prefix, *command], text)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """The calling thread, and threads and processes it starts, are on the node's network."""
        return self.namespace.entered()

    def helm(self, *arguments: str) -> str:
        """What helm prints."""
        helm = (kube_programs.program("helm"), f"--kubeconfig={self.kubeconfig}")
        return self.run(*helm, *arguments)

    def import_image(self, archive: Path) -> None:
        """Makes the images of a docker or OCI archive known to the node."""
        output([*self.prefix, *import_command(archive)])

    def start(self) -> None:
        self.namespace = Namespace(f"autoglm-{secrets.token_hex(4)}", SERVICE_NETWORK)
        self.namespace.start()
        self.prefix = self.namespace.prefix()
        self.client_prefix = self.namespace.network_prefix()
        super().start()
        self._files = NodeFiles(self.layout, self.namespace.name)
        write_files(self._files.written())
        self._start_containerd()
        self.spawn("kubelet", self._files.kubelet_command())
        self.spawn("kube-proxy", self._files.kube_proxy_command())
        self.kubectl("apply", "--server-side", "-f", str(_ADDONS))
        self.wait("the node", self._is_ready)

    def stop(self) -> None:
        try:
            self.namespace.stop()
        finally:
            super().stop()

    def data(self) -> Sequence[Path]:
        """What nobody wants to look at when a test has failed."""
        node = self.directory / "node"
        return (*super().data(), node / "containerd", node / "kubelet", node / "images")

    def _start_containerd(self) -> None:
        self.spawn("containerd", self._files.containerd_command())
        images = self.directory / "node/images"
        images.mkdir()
        self.wait("containerd", lambda: bool(output([*self.prefix, *CTR, "version"])))
        for name, program in _IMAGES.items():
            executable = Path(kube_programs.program(program)).resolve()
            self.import_image(program_image(name, executable, images / f"{program}.tar"))

    def _is_ready(self) -> bool:
        """Raises ClusterFailed with what is not true yet."""
        for what in (
            f"node/{NODE_NAME}=Ready",
            "deployment/coredns=Available",
            "deployment/metrics-server=Available",
            "apiservice/v1beta1.metrics.k8s.io=Available",
        ):
            name, condition = what.split("=")
            waiting = ("wait", f"--for=condition={condition}", "--timeout=1s", "-n", "kube-system")
            self.kubectl(*waiting, name)
        return True


def write_files(files: Mapping[Path, str | dict[str, Any]]) -> None:
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
