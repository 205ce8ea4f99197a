import io
import shlex
from pathlib import Path
from typing import Any

import pytest

from autoglm.local.gpus import Gpus

MANIFEST = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: first}
spec:
  replicas: 2
  model: {uri: ./model, servedName: first}
  engine: {env: [{name: A_NAME, value: a value}]}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "model.yaml"
    path.write_text(MANIFEST)
    return path


def test_dry_run_prints_commands_that_a_shell_can_run(autoglm: Any, manifest: Path) -> None:
    result = autoglm(
        *("up", "-f", str(manifest), "--dry-run", "--traces", "console"),
        *("--grpc-address", "127.0.0.1:5", "--run-dir", str(manifest.parent)),
    )
    assert (result.code, result.err) == (0, "")
    gateway, comment, pod = result.out.splitlines()
    assert comment == "# first: 2 replicas, each with its own addresses"
    assert shlex.split(gateway)[:2] == ["autoglm", "gateway"]
    assert {"--grpc-address=127.0.0.1:5", "--traces=console"} <= set(shlex.split(gateway))
    assert shlex.split(pod)[:3] == ["A_NAME=a value", "autoglm", "inference"]
    assert f"--model-path={manifest.parent / 'model'}" in shlex.split(pod)


def on_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    found = Gpus(tuple(map(str, range(count))), ("NVIDIA L4",) * count)
    monkeypatch.setattr("autoglm.cli.commands.up.find_gpus", lambda: found)


def test_dry_run_shows_the_gpus_of_each_replica(
    autoglm: Any, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpus(monkeypatch, 4)
    manifest.write_text(MANIFEST.replace("engine: {", "engine: {parallelism: {tensor: 2}, "))
    result = autoglm("up", "-f", str(manifest), "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert "# first: 2 replicas, each with its own addresses and GPUs (0,1; 2,3)" in result.out


def test_too_few_gpus_end_it_before_anything_starts(
    autoglm: Any, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpus(monkeypatch, 1)
    result = autoglm("up", "-f", str(manifest), "--dry-run")
    assert (result.code, result.out) == (65, "")
    assert result.err == (
        "too few GPUs: first 2 x 1 is 2, and this machine has 1 (NVIDIA L4); lower spec.replicas "
        "or spec.engine.parallelism\n"
    )


def test_a_directory_stands_for_its_manifests(autoglm: Any, manifest: Path) -> None:
    second = MANIFEST.replace("first", "second").replace("replicas: 2", "replicas: 1")
    manifest.with_name("second.yml").write_text(second)
    manifest.with_name("notes.txt").write_text("no manifest")
    result = autoglm("up", "-f", str(manifest.parent), "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert [line for line in result.out.splitlines() if line.startswith("#")] == [
        "# first: 2 replicas, each with its own addresses",
        "# second: 1 replica, each with its own addresses",
    ]


def test_standard_input_is_a_manifest_beside_files(
    autoglm: Any, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = "{apiVersion: v1, kind: Service, metadata: {name: front}}"
    second = MANIFEST.replace("first", "second")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{second}---\n{service}"))
    result = autoglm("up", "-f", "-", "-f", str(manifest), "--dry-run")
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line.startswith("#")] == [
        "# first: 2 replicas, each with its own addresses",
        "# second: 2 replicas, each with its own addresses",
    ]
    assert result.err == (
        "standard input: Service front is skipped: it takes effect on Kubernetes\n"
    )


def test_problems_of_standard_input_name_it(autoglm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(MANIFEST.replace("replicas: 2", "replicas: x")))
    result = autoglm("up", "-f", "-")
    assert result.code == 65
    assert result.err.startswith("standard input: spec.replicas")


def test_a_directory_without_manifests_is_a_usage_error(autoglm: Any, tmp_path: Path) -> None:
    result = autoglm("up", "-f", str(tmp_path), "--dry-run")
    assert result.code == 2
    assert "has no file *.yaml, *.yml or *.json" in result.err.replace("\n", " ")


def test_a_wrong_manifest_exits_65_and_names_the_field(autoglm: Any, manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("replicas: 2", "replicas: many"))
    result = autoglm("up", "-f", str(manifest), "--dry-run")
    assert result.code == 65
    assert "spec.replicas" in result.err


def test_up_gets_what_the_flags_say(
    autoglm: Any, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def up(files: Any, options: Any) -> int:
        seen.append((files, options))
        return 7

    monkeypatch.setattr("autoglm.cli.commands.up.up", up)
    code = autoglm(
        *("up", "-f", str(manifest), "-f", str(manifest), "--no-watch", "--run-dir", "run"),
        *("--http-address", "127.0.0.1:6", "--metrics-address", "127.0.0.1:7"),
    ).code
    ((files, options),) = seen
    assert (code, files) == (7, (manifest, manifest))
    assert (options.run_dir, options.watch, options.traces) == (Path("run"), False, None)
    assert options.gateway.flags() == (
        "--grpc-address=127.0.0.1:50051",
        "--http-address=127.0.0.1:6",
        "--metrics-address=127.0.0.1:7",
    )


def test_up_without_a_file_is_wrong_usage(autoglm: Any) -> None:
    assert autoglm("up").code == 2
    assert autoglm("up", "-f", "/nowhere.yaml").code == 2


OPEN = ("--grpc-address", "0.0.0.0:5", "--dry-run")


def test_reachable_addresses_need_an_authentication_setting(autoglm: Any, manifest: Path) -> None:
    result = autoglm("up", "-f", str(manifest), *OPEN)
    assert (result.code, result.out) == (64, "")
    assert "--allow-anonymous" in result.err


@pytest.mark.parametrize("word", ["--allow-anonymous", "--api-keys-file"])
def test_authentication_flags_reach_the_gateway(autoglm: Any, manifest: Path, word: str) -> None:
    flag = word if word == "--allow-anonymous" else f"{word}={manifest}"
    gateway = autoglm("up", "-f", str(manifest), *OPEN, flag).out.splitlines()[0]
    assert flag in shlex.split(gateway)


def test_a_file_has_settings_of_the_gateway_and_flags_override_it(
    autoglm: Any, manifest: Path, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "http_address: 127.0.0.1:7\nmax-inflight: 200\nroute_debug: true\n"
        "jwt_audience: [a, b]\njwt_issuer: x\njwt_jwks: https://id.example/keys\n"
        "traces: console\ndata_plane: envoy\n"
    )
    flags = ("--gateway-config", str(file), "--no-route-debug", "--data-plane", "embedded")
    result = autoglm("up", "-f", str(manifest), "--dry-run", "--traces", "none", *flags)
    assert (result.code, result.err) == (0, "")
    gateway = shlex.split(result.out.splitlines()[0])
    assert {
        "--http-address=127.0.0.1:7",
        "--grpc-address=127.0.0.1:50051",
        "--max-inflight=200",
        "--no-route-debug",
        "--jwt-audience=a",
        "--jwt-audience=b",
        "--data-plane=embedded",
        "--traces=none",
    } <= set(gateway)
    assert not {"--route-debug", "--data-plane=envoy", "--traces=console"} & set(gateway)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_infligt: 1",
            "max_infligt: is no setting of the gateway; the nearest is max_inflight",
        ),
        ('{"max_inflight": 0}', "--max-inflight / AUTOGLM_MAX_INFLIGHT: "),
        ("endpoints_file: x", "endpoints_file: `autoglm up` writes this file itself"),
        ("upstream_api_key: x", "upstream_api_key: would show in the process list"),
        ("[1]", "give one mapping of settings"),
        ("a: [", "gateway.yaml"),
        ("tenants_file: nowhere.json", "--tenants-file: there is no file nowhere.json"),
    ],
)
def test_a_wrong_setting_of_the_file_is_a_sentence(
    autoglm: Any, manifest: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    result = autoglm("up", "-f", str(manifest), "--dry-run", "--gateway-config", str(file))
    assert (result.code, result.out) == (64, "")
    assert message in result.err
