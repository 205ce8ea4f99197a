"""The pure parts of the Kubernetes harness; the rest is tested by its own rings."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.kube import commands, programs
from tests.support.kube.daemon import ClusterFailed, Daemon, output
from tests.support.kube.images import program_image, read_image
from tests.support.kube.pki import Pki, write_pki


@pytest.fixture
def layout(tmp_path: Path) -> commands.Layout:
    return commands.Layout(tmp_path, Pki(tmp_path / "pki", "token"), (1, 2, 3))


def test_missing_programs_are_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_KUBE_TOOLS", str(tmp_path))
    present = tmp_path / "etcd"
    present.touch(mode=0o755)
    reason = programs.lacking(("etcd", "kwok"))
    assert reason == f"kwok not in {tmp_path}: run scripts/kube_tools (needs Go 1.26)"
    assert programs.lacking(("etcd",)) == ""


def test_control_plane_listens_on_loopback_only(layout: commands.Layout) -> None:
    for command in (commands.etcd(layout), commands.api_server(layout)):
        text = " ".join(command)
        assert "127.0.0.1" in text
        assert "0.0.0.0" not in text
    for command in (commands.controller_manager(layout), commands.scheduler(layout)):
        assert "--secure-port=0" in command


def test_certificates_carry_the_groups_that_kubernetes_reads(tmp_path: Path) -> None:
    pki = write_pki(tmp_path / "pki", ["127.0.0.1"])
    pem = Path(pki.certificate("kubelet-client")).read_bytes()
    subject = x509.load_pem_x509_certificate(pem).subject.rfc4514_string()
    assert "O=system:masters" in subject
    assert "CN=kubelet-client" in subject


def test_program_image_names_itself_and_holds_the_program(tmp_path: Path) -> None:
    executable = tmp_path / "hello"
    executable.write_bytes(b"#!program")
    archive = program_image("test/hello:1", executable, tmp_path / "hello.tar")
    with tarfile.open(archive) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json") or pytest.fail())
        config = json.load(tar.extractfile(manifest["Config"]) or pytest.fail())
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][0])) as layer:
            assert [(m.name, m.mode) for m in layer] == [("hello", 0o755)]
    assert manifest["RepoTags"] == ["test/hello:1"]
    assert config["config"]["Entrypoint"] == ["/hello"]


def test_program_that_ends_by_itself_is_an_error_with_its_log(tmp_path: Path) -> None:
    code = "import sys; print('no such flag'); sys.exit(3)"
    daemon = Daemon("worker", [sys.executable, "-c", code], tmp_path / "worker.log").start()
    assert daemon.child is not None
    daemon.child.wait(10)
    with pytest.raises(ClusterFailed, match=r"worker ended with 3; its log ends:\nno such flag"):
        daemon.check()
    daemon.stop()


def test_failing_command_is_an_error_with_its_complaint() -> None:
    with pytest.raises(ClusterFailed, match="not today"):
        output([sys.executable, "-c", "raise SystemExit('not today')"])


def test_an_archive_is_read_as_what_its_layers_leave(tmp_path: Path) -> None:
    layers = [["bin/gcc", "lib/pip/core.py", "lib/kept.py"], ["bin/.wh.gcc", "lib/.wh.pip", "new"]]
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        names = [f"{number}.tar" for number in range(len(layers))]
        for name, files in zip(names, layers, strict=True):
            _store(tar, name, _layer_of(files))
        _store(tar, "config.json", json.dumps({"config": {"User": "7:7"}}).encode())
        manifest = [{"Config": "config.json", "Layers": names}]
        _store(tar, "manifest.json", json.dumps(manifest).encode())

    image = read_image(archive)

    assert image.files == {"lib/kept.py", "new"}
    assert image.config == {"User": "7:7"}
    assert len(image.layers) == 2


def _layer_of(files: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in files:
            _store(tar, name, b"")
    return buffer.getvalue()


def _store(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
