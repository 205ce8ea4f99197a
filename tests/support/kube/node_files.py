"""Configuration and command lines of a node's programs. Pure: starts nothing, writes nothing.

containerd and kubelet for each node, and one kube-proxy, since all nodes share the network of their
`Namespace`. `Node` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kube.commands import Command, Layout
from tests.support.kube.namespace import KUBELETS
from tests.support.kube.programs import program

POD_NETWORK = "10.244.0.0/16"
DNS_ADDRESS = "10.96.0.10"
PAUSE = "autoglm-test/pause:1"
_CONTAINERD = """\
version = 2
root = "{state}/containerd"
state = "{run}"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """One of the nodes."""

    at: Layout
    index: int
    address: str
    cgroup: str

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def state(self) -> Path:
        return self.at.directory / self.name

    @property
    def run(self) -> str:
        """In memory, and only seen inside the namespace."""
        return f"/run/containerd-{self.index}"

    @property
    def ctr(self) -> Command:
        return ("ctr", f"--address={self.run}/containerd.sock", "--namespace=k8s.io")

    def written(self) -> dict[Path, str | dict[str, Any]]:
        """Files and what is in them; a dictionary is written as JSON."""
        return {
            self.state / "containerd.toml": _CONTAINERD.format(
                state=self.state, run=self.run, pause=PAUSE
            ),
            self.state / "cni/pods.conflist": self.cni(),
            self.state / "kubelet.json": self.kubelet(),
            self.state / "kube-proxy.json": self.kube_proxy(),
        }

    def cni(self) -> dict[str, Any]:
        """Every pod is a link of its own to the node, so that all its traffic is routed."""
        addresses = {
            "type": "host-local",
            "dataDir": f"{self.state}/addresses",
            "ranges": [[{"subnet": f"10.244.{self.index}.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}

    def kubelet(self) -> dict[str, Any]:
        pki = self.at.pki
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": pki.certificate("ca")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.certificate("kubelet"),
            "tlsPrivateKeyFile": pki.key("kubelet"),
            "containerRuntimeEndpoint": f"unix://{self.run}/containerd.sock",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            # Without it the eviction manager fails every ten seconds.
            "localStorageCapacityIsolation": True,
            "podLogsDir": f"{self.state}/pod-logs",
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "5s",
            # A development machine's disk may be fuller than a node's should be.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        }

    def kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            # It takes pods of the other nodes for remote, and does not expect that a Service sends
            # one of them back to itself.
            "nftables": {"masqueradeAll": True},
            "clientConnection": {"kubeconfig": str(self.at.kubeconfig)},
            # The machine's own limits stay.
            "conntrack": {
                "maxPerCore": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }

    def containerd_command(self) -> Command:
        return ("containerd", "--config", str(self.state / "containerd.toml"))

    def kubelet_command(self) -> Command:
        return (
            *(program("kubelet"), f"--kubeconfig={self.at.kubeconfig}"),
            *(f"--config={self.state}/kubelet.json", f"--root-dir={KUBELETS / self.name}"),
            *(f"--node-ip={self.address}", f"--hostname-override={self.name}"),
        )

    def kube_proxy_command(self) -> Command:
        return (
            *(program("kube-proxy"), f"--config={self.state}/kube-proxy.json"),
            f"--hostname-override={self.name}",
        )
