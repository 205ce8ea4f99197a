"""Images are built by whatever the machine has, and reach the cluster that kubectl is set to."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import images
from scripts.images import (
    Builder,
    Cluster,
    Problem,
    build_command,
    builder_of,
    cluster_of,
    given_cluster,
    images_of,
    inspect_command,
    load_command,
    main,
    reference,
    save_command,
)
from scripts.version import ROOT, current

NAME = f"docker.io/library/open-autoglm:{current()}"
# A stand-in of a program that writes down what it is called with, and does what a test wants.
PROGRAM = """\
#!/bin/sh
echo "{name} $*" >>"{log}"
case "$*" in {failing}) echo "{complaint}" >&2; exit 1;; esac
{prints}
"""


def failing(why: str) -> Callable[[Builder], str]:
    return lambda builder: "" if builder.program == why else f"no {builder.program}"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A machine with the given programs and no others; returns the log of their calls."""
    log, place = tmp_path / "calls", tmp_path / "bin"
    place.mkdir()
    for needed in ("sh", "echo"):
        found = next(d / needed for d in map(Path, ("/bin", "/usr/bin")) if (d / needed).exists())
        (place / needed).symlink_to(found)
    monkeypatch.setenv("PATH", str(place))

    def add(name: str, fails_on: str = "never", complaint: str = "", prints: str = "") -> Path:
        text = PROGRAM.format(
            name=name, log=log, failing=fails_on, complaint=complaint, prints=prints
        )
        (place / name).write_text(text)
        (place / name).chmod(0o755)
        return log

    return add


def calls(log: Path) -> list[str]:
    return log.read_text().splitlines()


def test_the_images_are_those_of_the_dockerfiles() -> None:
    found = {path.parent.name for path in (ROOT / "deploy/images").glob("*/Dockerfile")}
    assert images.TAGS.keys() == images.ABOUT.keys() == found


def test_the_first_builder_that_works_is_taken() -> None:
    for program in ("docker", "podman", "nerdctl", "buildah"):
        assert builder_of("", failing(program)) == Builder((program,))


def test_where_no_builder_works_each_says_why() -> None:
    with pytest.raises(Problem) as caught:
        builder_of("", lambda builder: f"no {builder.program} here")
    assert caught.value.args[1:] == (
        "docker: no docker here",
        "podman: no podman here",
        "nerdctl: no nerdctl here",
        "buildah: no buildah here",
    )


def test_a_builder_may_be_named_with_arguments_of_its_own() -> None:
    builder = builder_of("nerdctl --namespace k8s.io", lambda _: "")
    assert builder.command("info") == ["nerdctl", "--namespace", "k8s.io", "info"]
    with pytest.raises(Problem, match="BUILDER is 'kaniko'"):
        builder_of("kaniko", lambda _: "")


@pytest.mark.parametrize("program", ["docker", "podman", "nerdctl"])
def test_docker_and_those_like_it_build_save_and_inspect(program: str) -> None:
    builder, archive = Builder((program,)), Path("/tmp/a.tar")
    assert shlex.join(build_command(builder, "inference-cpu", "a:1", ["--pull"])) == (
        f"{program} build --pull -f deploy/images/inference-cpu/Dockerfile -t a:1 ."
    )
    assert save_command(builder, "a:1", archive) == [
        program,
        "save",
        "--output",
        "/tmp/a.tar",
        "a:1",
    ]
    assert inspect_command(builder, "a:1") == [program, "image", "inspect", "a:1"]


def test_buildah_keeps_layers_and_writes_a_docker_archive() -> None:
    builder = Builder(("buildah",))
    assert build_command(builder, "open-autoglm", NAME, [])[:3] == ["buildah", "build", "--layers"]
    saved = save_command(builder, NAME, Path("/tmp/a.tar"))
    assert saved == ["buildah", "push", NAME, f"docker-archive:/tmp/a.tar:{NAME}"]


def test_an_image_is_named_as_pods_name_it() -> None:
    assert reference("open-autoglm", "1.2.3") == "docker.io/library/open-autoglm:1.2.3"
    cpu = reference("inference-cpu", "1.2.3", "registry.example.com/ai/")
    assert cpu == "registry.example.com/ai/open-autoglm-inference:1.2.3-cpu"


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("kind-dev", Cluster("kind", "dev")),
        ("k3d-my-cluster", Cluster("k3d", "my-cluster")),
        ("laptop", Cluster("minikube", "laptop")),
        ("default", Cluster("k3s")),
    ],
)
def test_the_cluster_is_the_one_of_kubectls_context(context: str, expected: Cluster) -> None:
    assert cluster_of(context, ["minikube", "laptop"], has_k3s=True) == expected


@pytest.mark.parametrize("context", ["", "default", "gke_project_zone"])
def test_another_cluster_is_pointed_to_a_registry(context: str) -> None:
    with pytest.raises(Problem, match=r"make images REGISTRY=registry\.example\.com/ai"):
        cluster_of(context, [], has_k3s=False)


def test_a_cluster_may_be_named() -> None:
    assert given_cluster("kind:dev") == Cluster("kind", "dev")
    assert given_cluster("minikube") == Cluster("minikube", "minikube")
    with pytest.raises(Problem, match="CLUSTER is 'gke'"):
        given_cluster("gke")


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster("kind", "dev"), "kind load image-archive /a.tar --name dev"),
        (Cluster("k3d", "dev"), "k3d image import /a.tar --cluster dev"),
        (Cluster("minikube", "dev"), "minikube image load /a.tar --profile dev"),
        (Cluster("k3s"), "k3s ctr images import /a.tar"),
    ],
)
def test_each_cluster_takes_the_archive_by_its_own_command(cluster: Cluster, expected: str) -> None:
    assert shlex.join(load_command(cluster, Path("/a.tar"))) == expected


def test_images_are_named_by_their_directories() -> None:
    assert images_of([]) == ["open-autoglm"]
    assert images_of(["all"]) == ["open-autoglm", "inference", "inference-cpu"]
    with pytest.raises(Problem, match="no image is called 'gpu'"):
        images_of(["gpu"])


def test_docker_without_its_daemon_is_passed_over(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log = machine("docker", fails_on="version", complaint="Cannot connect to the Docker daemon")
    machine("podman")
    assert main(["build"]) == 0
    assert calls(log) == [
        "docker version",
        "podman info",
        f"podman build -f deploy/images/open-autoglm/Dockerfile -t {NAME} .",
    ]
    printed = capsys.readouterr().out
    assert "building with podman: open-autoglm" in printed
    assert "make cluster-load" in printed and "IMAGES=inference " in printed


def test_where_nothing_builds_the_reasons_are_printed(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    machine("docker", fails_on="version", complaint="Cannot connect to the Docker daemon")
    assert main(["build"]) == 1
    said = capsys.readouterr().err
    assert "docker: Cannot connect to the Docker daemon" in said
    assert "podman: not installed" in said


def test_with_a_registry_images_are_pushed(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log = machine("docker")
    assert main(["build", "--registry=registry.example.com/ai"]) == 0
    assert calls(log)[-1] == f"docker push registry.example.com/ai/open-autoglm:{current()}"
    assert "--set image.registry=registry.example.com/ai" in capsys.readouterr().out


def test_loading_saves_each_image_and_imports_it(machine: Callable[..., Path]) -> None:
    log = machine("docker")
    machine("kubectl", prints="echo kind-dev")
    machine("kind")
    assert main(["load"]) == 0
    *_, saved, loaded = calls(log)
    archive = saved.removeprefix("docker save --output ").removesuffix(f" {NAME}")
    assert loaded == f"kind load image-archive {archive} --name dev"


def test_loading_finds_the_profiles_of_minikube(machine: Callable[..., Path]) -> None:
    log = machine("docker")
    machine("kubectl", prints="echo laptop")
    machine("minikube", prints="""echo '{"valid": [{"Name": "laptop"}]}'""")
    assert main(["load"]) == 0
    assert calls(log)[-1].startswith("minikube image load ")


def test_an_image_that_was_not_built_is_not_loaded(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    machine("docker", fails_on="'image inspect'*", complaint="No such image")
    assert main(["load", "inference-cpu"]) == 1
    assert "run `make images IMAGES=inference-cpu`" in capsys.readouterr().err


def test_a_build_that_fails_ends_with_its_command(
    machine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    machine("docker", fails_on="build*", complaint="no space left on device")
    assert main(["build"]) == 1
    assert "docker build -f … ended with exit code 1" in capsys.readouterr().err
