"""The command lines of a control plane's programs. Pure: starts nothing, writes nothing.

Chosen for tests: no fsync, short periods of the autoscaler, high request rates, nothing but
loopback. `ControlPlane` runs them, in a namespace of their own for a real `Node`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kube.pki import Pki
from tests.support.kube.programs import program

ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
FAKE_NODE = "kwok.x-k8s.io/node=fake"
_FAST = ("--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false")

Command = Sequence[str]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one cluster lives: its directory, ports and addresses."""

    directory: Path
    pki: Pki
    ports: tuple[int, int, int]
    """API server, etcd's clients, etcd's peers."""
    advertised: str = "127.0.0.1"
    """Where pods reach the API server; loopback means that there are no real pods."""

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.ports[0]}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def has_real_pods(self) -> bool:
        return self.advertised != "127.0.0.1"


def etcd(at: Layout) -> Command:
    clients, peers = (f"http://127.0.0.1:{port}" for port in at.ports[1:])
    return (
        *(program("etcd"), "--unsafe-no-fsync", f"--data-dir={at.directory / 'etcd'}"),
        *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
        *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
        *(f"--initial-cluster=default={peers}", "--log-level=warn"),
    )


def api_server(at: Layout) -> Command:
    pki = at.pki
    return (
        *(program("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{at.ports[1]}"),
        *_api_server_addresses(at),
        *(f"--tls-cert-file={pki.certificate('server')}", f"--cert-dir={at.directory}"),
        f"--tls-private-key-file={pki.key('server')}",
        *(f"--client-ca-file={pki.certificate('ca')}", f"--token-auth-file={pki.token_file}"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
        *(f"--service-account-issuer={ISSUER}", "--allow-privileged=true"),
        f"--service-account-key-file={pki.certificate('service-account')}",
        f"--service-account-signing-key-file={pki.key('service-account')}",
        *_kubelet_access(pki),
        *_aggregation(pki),
    )


def _api_server_addresses(at: Layout) -> Command:
    return (
        f"--bind-address={'0.0.0.0' if at.has_real_pods else '127.0.0.1'}",
        *(f"--secure-port={at.ports[0]}", f"--advertise-address={at.advertised}"),
        # A Service may not lead to loopback, so without real pods `kubernetes` leads nowhere.
        f"--endpoint-reconciler-type={'lease' if at.has_real_pods else 'none'}",
        *(f"--service-cluster-ip-range={SERVICE_NETWORK}", "--shutdown-delay-duration=0s"),
    )


def _kubelet_access(pki: Pki) -> Command:
    return (
        f"--kubelet-certificate-authority={pki.certificate('ca')}",
        f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
        f"--kubelet-client-key={pki.key('kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP",
    )


def _aggregation(pki: Pki) -> Command:
    return (
        f"--requestheader-client-ca-file={pki.certificate('front-ca')}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki.certificate('front-proxy-client')}",
        f"--proxy-client-key-file={pki.key('front-proxy-client')}",
        "--enable-aggregator-routing=true",
    )


def controller_manager(at: Layout) -> Command:
    autoscaler = "--horizontal-pod-autoscaler"
    return (
        *(program("kube-controller-manager"), f"--kubeconfig={at.kubeconfig}", *_FAST),
        *("--secure-port=0", "--use-service-account-credentials=true"),
        f"--root-ca-file={at.pki.certificate('ca')}",
        f"--service-account-private-key-file={at.pki.key('service-account')}",
        *("--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20"),
        "--concurrent-gc-syncs=50",
        "--enable-hostpath-provisioner=true",
        *(f"{autoscaler}-sync-period=5s", f"{autoscaler}-downscale-stabilization=20s"),
        f"{autoscaler}-cpu-initialization-period=10s",
        f"{autoscaler}-initial-readiness-delay=5s",
    )


def scheduler(at: Layout) -> Command:
    return (program("kube-scheduler"), f"--kubeconfig={at.kubeconfig}", "--secure-port=0", *_FAST)


def kwok(at: Layout, stages: Path, node_address: str) -> Command:
    """Fakes the kubelets of nodes that say so in an annotation, and of no other."""
    return (
        *(program("kwok"), f"--kubeconfig={at.kubeconfig}", f"--config={stages}"),
        *(f"--node-ip={node_address}", "--node-port=0", "--cidr=10.128.0.0/12"),
        *("--node-lease-duration-seconds=40", "--manage-all-nodes=false"),
        f"--manage-nodes-with-annotation-selector={FAKE_NODE}",
    )


def kubeconfig(at: Layout) -> dict[str, Any]:
    """The administrator's."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {
                "name": "test",
                "cluster": {
                    "server": at.server,
                    "certificate-authority": at.pki.certificate("ca"),
                },
            }
        ],
        "users": [{"name": "admin", "user": {"token": at.pki.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }
