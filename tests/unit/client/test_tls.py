from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from autoglm.client import AsyncClient, Client, RetryPolicy, TlsFiles
from autoglm.common.errors import NoReadyEndpoint
from autoglm.common.tls import grpc_server_credentials
from autoglm.testing.fake_server import FakeServer

ONCE = RetryPolicy(attempts=1)


def write(blob: trustme.Blob, path: Path) -> str:
    blob.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path) -> Iterator[FakeServer]:
    """A server that requires client certificates."""
    certificate = authority.issue_cert("localhost")
    files = TlsFiles(
        write(certificate.cert_chain_pems[0], tmp_path / "server.pem"),
        write(certificate.private_key_pem, tmp_path / "server.key"),
        write(authority.cert_pem, tmp_path / "ca.pem"),
    )
    with FakeServer(credentials=grpc_server_credentials(files)) as fake:
        yield fake


@pytest.fixture
def files(authority: trustme.CA, server: FakeServer, tmp_path: Path) -> TlsFiles:
    certificate = authority.issue_cert("client")
    return TlsFiles(
        write(certificate.cert_chain_pems[0], tmp_path / "client.pem"),
        write(certificate.private_key_pem, tmp_path / "client.key"),
        str(tmp_path / "ca.pem"),
    )


async def test_both_clients_show_their_certificate(server: FakeServer, files: TlsFiles) -> None:
    with Client(server.address, tls=files) as client:
        assert client.get_model("fake").name == "fake"
    async with AsyncClient(server.address, tls=files) as client:
        assert (await client.get_model("fake")).name == "fake"


def test_without_a_certificate_the_server_refuses(server: FakeServer, files: TlsFiles) -> None:
    nameless = TlsFiles(ca_file=files.ca_file)
    with (
        Client(server.address, tls=nameless, retries=ONCE) as client,
        pytest.raises(NoReadyEndpoint),
    ):
        client.list_models()


def test_a_server_of_another_authority_is_refused(
    server: FakeServer, files: TlsFiles, tmp_path: Path
) -> None:
    other = write(trustme.CA().cert_pem, tmp_path / "other.pem")
    stranger = TlsFiles(files.cert_file, files.key_file, other)
    with (
        Client(server.address, tls=stranger, retries=ONCE) as client,
        pytest.raises(NoReadyEndpoint),
    ):
        client.list_models()
