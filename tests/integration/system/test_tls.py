"""TLS and mTLS between client, gateway and pod, with certificates that change under way."""

import datetime
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.support import processes
from tests.support.processes import Process

from autoglm.client import Client, TlsFiles
from autoglm.common import errors

pytestmark = pytest.mark.timeout(300)


class Authority:
    """A certificate authority and the files it has issued."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, days: int = 30) -> tuple[Path, Path]:
        """Certificate and key for `name` on loopback; replaces what was issued before."""
        until = datetime.datetime.now() + datetime.timedelta(days=days)
        issued = self._authority.issue_cert("127.0.0.1", "localhost", not_after=until)
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def gateway(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A gateway and a pod that demand client certificates, and trust only this authority."""
    logs = tmp_path_factory.mktemp("tls")
    flags = {}
    for name in ("pod", "gateway"):
        cert, key = authority.issue(name)
        files = {"cert": cert, "key": key, "client-ca": authority.file}
        flags[name] = [w for k, v in files.items() for w in (f"--tls-{k}-file", str(v))]
    pod = processes.echo_pod(logs, "pod", *flags["pod"])
    cert, key = authority.issue("gateway-as-client")
    front = processes.Process(
        "gateway",
        [
            *("gateway", "--endpoint", f"grpcs://{pod.grpc_address}"),
            *("--upstream-ca-file", str(authority.file)),
            *("--upstream-cert-file", str(cert), "--upstream-key-file", str(key)),
            *flags["gateway"],
        ],
        logs / "gateway.log",
    )
    with processes.running(pod, front):
        yield front


def client_files(authority: Authority) -> TlsFiles:
    cert, key = authority.issue("client")
    return TlsFiles(str(cert), str(key), str(authority.file))


def test_grpc_is_served_over_mtls(gateway: Process, authority: Authority) -> None:
    with Client(gateway.grpc_address, tls=client_files(authority)) as client:
        assert client.chat("hello", model="echo").choices[0].message.content


def test_rest_is_served_over_mtls(gateway: Process, authority: Authority) -> None:
    files = client_files(authority)
    context = ssl.create_default_context(cafile=files.ca_file)
    context.load_cert_chain(files.cert_file, files.key_file)
    url = f"https://{gateway.http_address}/v1/models"
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        assert b'"echo"' in answer.read()


def test_a_client_without_a_certificate_is_refused(gateway: Process, authority: Authority) -> None:
    tls = TlsFiles(ca_file=str(authority.file))
    with (
        Client(gateway.grpc_address, tls=tls, timeout=3) as client,
        pytest.raises(errors.AutoGLMError),
    ):
        client.list_models()


def served_certificate(gateway: Process, address: str, authority: Authority) -> bytes:
    files = client_files(authority)
    context = ssl.create_default_context(cafile=files.ca_file)
    context.load_cert_chain(files.cert_file, files.key_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


@pytest.mark.parametrize("edge", ["grpc_address", "http_address"])
def test_a_renewed_certificate_is_served_without_a_restart(
    gateway: Process, authority: Authority, edge: str
) -> None:
    address = getattr(gateway, edge)
    before = served_certificate(gateway, address, authority)
    authority.issue("gateway", days=60)
    processes.eventually(lambda: served_certificate(gateway, address, authority) != before)
