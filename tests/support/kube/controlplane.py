"""A real Kubernetes control plane on loopback, for tests: etcd, API server, controllers, scheduler.

With `fake_nodes` kwok plays the kubelet: pods become Ready without running anything. A pod with the
annotation `kwok.autoglm.io/hold` stays Pending, so that a test writes its status itself. Nothing
listens outside of loopback, and nothing is left behind. `Node` runs the same programs in a
namespace of their own, by `prefix`.

    with ControlPlane(directory, fake_nodes=2) as cluster:
        cluster.kubectl("get", "nodes")
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import kubernetes.client
import kubernetes.config
from tests.support.kube import commands as commands
from tests.support.kube.daemon import ClusterFailed, Daemon, output
from tests.support.kube.pki import write_pki
from tests.support.kube.programs import program
from tests.support.processes import free_ports

START_SECONDS = 90.0
HOLD = "kwok.autoglm.io/hold"
_STAGES = Path(__file__).with_name("kwok_stages.yaml")
_POLL_SECONDS = 0.1


@dataclass
class ControlPlane:
    directory: Path
    """Must not exist yet; holds keys and data, and the logs afterwards as well."""
    fake_nodes: int = 0
    prefix: Sequence[str] = ()
    """Put before every program's command, to run it elsewhere."""
    client_prefix: Sequence[str] = ()
    """Put before kubectl's."""
    advertised: str = "127.0.0.1"
    ports: Sequence[int] = field(default_factory=lambda: free_ports(3))
    _daemons: dict[str, Daemon] = field(default_factory=dict, init=False)
    layout: commands.Layout = field(init=False)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what a test uses --

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.layout.kubeconfig

    @property
    def server(self) -> str:
        return self.layout.server

    @property
    def ca(self) -> Path:
        return Path(self.layout.pki.certificate("ca"))

    @property
    def token(self) -> str:
        """The administrator's."""
        return self.layout.pki.token

    def client(self) -> kubernetes.client.ApiClient:
        """A client of the official library, with the administrator's rights."""
        load = kubernetes.config.new_client_from_config
        client: kubernetes.client.ApiClient = load(str(self.kubeconfig))  # type: ignore[no-untyped-call]  # the library has no types
        return client

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl prints. Raises ClusterFailed with what it complains about."""
        kubectl = (program("kubectl"), f"--kubeconfig={self.kubeconfig}")
        return output([*self.client_prefix, *kubectl, *arguments], text)

    def apply(self, *documents: dict[str, Any]) -> None:
        """Server-side apply as the field manager `test`."""
        text = "\n---\n".join(json.dumps(document) for document in documents)
        self.kubectl("apply", "--server-side", "--field-manager=test", "-f", "-", text=text)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get` of one object or a list, parsed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return found

    def stop_api_server(self) -> None:
        """Gone without a goodbye, as when its machine dies."""
        self._daemons["kube-apiserver"].stop(signal.SIGKILL)

    def start_api_server(self) -> None:
        self._daemons["kube-apiserver"].start()
        self.wait("the API server", self._api_server_is_ready)

    def restart_api_server(self) -> None:
        self.stop_api_server()
        self.start_api_server()

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """A program of it stands still, so that the state before its next action is seen."""
        pid = self._daemons[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    # -- how it comes up and goes --

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        addresses = dict.fromkeys([commands.API_SERVICE_ADDRESS, *self.addresses()])
        pki = write_pki(self.directory / "pki", addresses)
        api, etcd, peers = self.ports
        self.layout = commands.Layout(self.directory, pki, (api, etcd, peers), self.advertised)
        self.kubeconfig.write_text(json.dumps(commands.kubeconfig(self.layout)))
        self.spawn("etcd", commands.etcd(self.layout))
        self.spawn("kube-apiserver", commands.api_server(self.layout))
        self.wait("the API server", self._api_server_is_ready)
        self.spawn("kube-controller-manager", commands.controller_manager(self.layout))
        self.spawn("kube-scheduler", commands.scheduler(self.layout))
        if self.fake_nodes:
            self._start_fake_nodes()
        self.wait("the controllers", self._controllers_are_ready)

    def spawn(self, name: str, command: Sequence[str]) -> Daemon:
        """Starts a program that ends with the cluster; its log is NAME.log."""
        daemon = Daemon(name, [*self.prefix, *command], self.log(name))
        self._daemons[name] = daemon
        return daemon.start()

    def stop(self) -> None:
        for daemon in reversed(self._daemons.values()):
            # Nothing of it is needed afterwards, and an orderly end takes seconds.
            daemon.stop(signal.SIGKILL)
        for data in self.data():
            shutil.rmtree(data, ignore_errors=True)

    def addresses(self) -> Sequence[str]:
        """Where the API server and kubelets can be reached."""
        return ("127.0.0.1",)

    def data(self) -> Sequence[Path]:
        """Directories that are not kept when a test has failed."""
        return (self.directory / "etcd",)

    def add_fake_nodes(self, names: Sequence[str]) -> None:
        self.apply(*(_fake_node(name) for name in names))

    def _start_fake_nodes(self) -> None:
        self.spawn("kwok", commands.kwok(self.layout, _STAGES, self.advertised))
        self.add_fake_nodes([f"fake-{i}" for i in range(self.fake_nodes)])

    def _api_server_is_ready(self) -> bool:
        return self.kubectl("get", "--raw=/readyz") == "ok"

    def _controllers_are_ready(self) -> bool:
        """Pods need a ServiceAccount, which the controller manager makes."""
        self.kubectl("get", "serviceaccount", "default", "-n", "default")
        nodes = self.get("nodes")["items"]
        return sum(map(_is_ready, nodes)) >= self.fake_nodes

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        reason: object = "not yet"
        while time.monotonic() < end:
            for daemon in self._daemons.values():
                daemon.check()
            try:
                if condition():
                    return
            except ClusterFailed as error:
                reason = error
            time.sleep(_POLL_SECONDS)
        raise ClusterFailed(
            f"{what} not ready in {START_SECONDS} s: {reason}; see {self.directory}"
        )


def _fake_node(name: str) -> dict[str, Any]:
    key, value = commands.FAKE_NODE.split("=")
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "fake"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {key: value}, "labels": labels},
    }


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
