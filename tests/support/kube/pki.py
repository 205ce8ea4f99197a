"""Certificates and keys of one throw-away cluster, signed by its own authority.

Written once into a directory; `kube_commands` names the files. Used by `ControlPlane` and `Node`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trustme

MASTERS = "system:masters"
# What a pod may call the API server.
_SERVICE_NAMES = (
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class Pki:
    """The files, by name without ending: NAME.crt and NAME.key."""

    directory: Path
    token: str

    def certificate(self, name: str) -> str:
        return str(self.directory / f"{name}.crt")

    def key(self, name: str) -> str:
        return str(self.directory / f"{name}.key")

    @property
    def token_file(self) -> str:
        return str(self.directory / "tokens.csv")


def write_pki(directory: Path, server_addresses: Iterable[str]) -> Pki:
    """The API server has the names `server_addresses`; the token is the administrator's."""
    directory.mkdir(parents=True)
    pki = Pki(directory, secrets.token_hex(16))
    ca, front = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(pki.certificate("ca"))
    front.cert_pem.write_to_path(pki.certificate("front-ca"))
    _issue(pki, ca, "server", ["localhost", *_SERVICE_NAMES, *server_addresses])
    _issue(pki, ca, "kubelet", ["localhost", *server_addresses])
    _issue(pki, ca, "kubelet-client", ["kubelet-client"], MASTERS)
    _issue(pki, front, "front-proxy-client", ["front-proxy-client"])
    _issue(pki, ca, "service-account", ["service-account"])
    Path(pki.token_file).write_text(f'{pki.token},admin,admin,"{MASTERS}"\n')
    return pki


def _issue(
    pki: Pki, ca: trustme.CA, name: str, addresses: list[str], organization: str | None = None
) -> None:
    """The common name is `name`, which Kubernetes reads as the user, and the organization as its
    group."""
    issued = ca.issue_cert(*addresses, common_name=name, organization_name=organization)
    issued.cert_chain_pems[0].write_to_path(pki.certificate(name))
    issued.private_key_pem.write_to_path(pki.key(name))
