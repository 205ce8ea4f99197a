"""`autoglm deploy` applies what the file says, and explains each rejection."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.support.processes import free_ports

from autoglm.cli.commands.deploy import Progress, follow, progress_of

SHORT = "model: org/Chat-9B\nreplicas: 2\n"
FULL = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: chat, namespace: models}
spec: {model: {uri: org/chat}}
"""
Response = tuple[int, dict[str, Any]]


class FakeApi(ThreadingHTTPServer):
    """Sends the responses of the list in order; the last one repeatedly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.responses: list[Response] = [(200, {"metadata": {"generation": 1}})]
        self.seen: list[tuple[str, str, dict[str, Any]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._respond(body)

    def do_GET(self) -> None:
        self._respond({})

    def _respond(self, body: dict[str, Any]) -> None:
        self.server.seen.append((self.command, self.path, body))
        responses = self.server.responses
        code, document = responses.pop(0) if len(responses) > 1 else responses[0]
        text = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """The test reads `seen`."""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, api.server_port)
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def write_kubeconfig(path: Path, port: int) -> None:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    document = {"clusters": [cluster], "contexts": [context], "users": users}
    path.write_text(yaml.safe_dump(document | {"current-context": "x", "apiVersion": "v1"}))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SHORT)
    return path


def live(ready: str = "True", observed: int = 1, reason: str = "AllReady") -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": reason, "message": "a sentence"}
    status = {
        "observedGeneration": observed,
        "phase": "Ready" if ready == "True" else "Loading",
        "readyReplicas": 2,
        "url": "http://gateway:8080",
        "conditions": [condition],
    }
    return {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}


def failed(code: int, message: str) -> Response:
    return code, {"kind": "Status", "message": message, "code": code}


def test_dry_run_prints_the_resource_without_a_request(autoglm: Any, config: Path) -> None:
    result = autoglm("deploy", "-c", str(config), "--dry-run", "--namespace", "models")

    assert (result.code, result.err) == (0, "")
    assert yaml.safe_load(result.out) == {
        "apiVersion": "autoglm.io/v1alpha1",
        "kind": "AutoGLMDeployment",
        "metadata": {"name": "chat-9b", "namespace": "models"},
        "spec": {"model": {"uri": "org/Chat-9B"}, "replicas": 2},
    }


def test_what_dry_run_prints_can_be_deployed(autoglm: Any, config: Path) -> None:
    printed = autoglm("deploy", "-c", str(config), "--dry-run", "--name", "x").out
    config.write_text(printed)

    assert autoglm("deploy", "-c", str(config), "--dry-run").out == printed


@pytest.mark.usefixtures("kubeconfig")
def test_the_short_form_is_applied_in_the_contexts_namespace(
    autoglm: Any, config: Path, api: FakeApi
) -> None:
    result = autoglm("deploy", "-c", str(config))

    assert (result.code, result.err) == (0, "")
    assert result.out == "autoglmdeployment team/chat-9b applied\n"
    [(method, path, body)] = api.seen
    assert method == "PATCH"
    url = urlsplit(path)
    assert url.path == "/apis/autoglm.io/v1alpha1/namespaces/team/autoglmdeployments/chat-9b"
    assert parse_qs(url.query) == {
        "fieldManager": ["autoglm-cli"],
        "fieldValidation": ["Strict"],
        "force": ["false"],
    }
    assert body["spec"] == {"model": {"uri": "org/Chat-9B"}, "replicas": 2}


@pytest.mark.usefixtures("kubeconfig")
def test_a_manifest_is_applied_as_it_is_written(autoglm: Any, config: Path, api: FakeApi) -> None:
    config.write_text(FULL)

    assert autoglm("deploy", "-c", str(config)).code == 0
    assert api.seen[0][2] == yaml.safe_load(FULL)


@pytest.mark.usefixtures("kubeconfig")
def test_waiting_ends_when_the_resource_is_ready(
    autoglm: Any, config: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoglm.cli.commands.deploy._POLL_SECONDS", 0.001)
    waiting = (200, live("False", reason="PodsStarting"))
    api.responses = [(200, {}), (200, live(observed=0)), (503, {}), waiting, (200, live())]

    result = autoglm("deploy", "-c", str(config), "--wait")

    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "autoglmdeployment team/chat-9b applied",
        "autoglmdeployment team/chat-9b: waiting for the operator; check that it is "
        "installed and watches this namespace",
        "autoglmdeployment team/chat-9b: ClusterFailed: team/chat-9b: 503 Service Unavailable; "
        "retry",
        "autoglmdeployment team/chat-9b: Loading, 2 of 2 ready: PodsStarting: a sentence",
        "autoglmdeployment team/chat-9b: Ready, 2 of 2 ready at http://gateway:8080",
    ]


@pytest.mark.usefixtures("kubeconfig")
def test_waiting_for_what_is_hopeless_ends_at_once(
    autoglm: Any, config: Path, api: FakeApi
) -> None:
    api.responses = [(200, live("False", reason="InvalidSpec"))]

    result = autoglm("deploy", "-c", str(config), "--wait")

    assert result.code == 3
    assert result.err.startswith("NotReady: autoglmdeployment team/chat-9b: Loading, 2 of 2 ready")


@pytest.mark.parametrize(
    ("response", "reason", "advice"),
    [
        (failed(401, "Unauthorized"), "Unauthenticated", "log in again"),
        (
            failed(403, "jo cannot patch"),
            "PermissionDenied",
            "jo cannot patch; request the permission",
        ),
        ((404, {}), "NotFound", "--namespace"),
        (
            failed(404, "404 page not found"),
            "CrdMissing",
            "install Open-AutoGLM with its CRD first",
        ),
        (failed(409, 'conflict with "kubectl"'), "Conflict", "--force-conflicts"),
        (failed(422, "spec.model.uri is required"), "Rejected", "spec.model.uri is required"),
        (failed(503, "starting"), "ClusterFailed", "503 starting; retry"),
    ],
)
@pytest.mark.usefixtures("kubeconfig")
def test_a_rejection_says_what_to_do(
    autoglm: Any, config: Path, api: FakeApi, response: Response, reason: str, advice: str
) -> None:
    api.responses = [response]

    result = autoglm("deploy", "-c", str(config))

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"{reason}: ")
    assert advice in result.err


def test_a_server_that_is_away_is_named(autoglm: Any, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, free_ports(1)[0])

    result = autoglm("deploy", "-c", str(config), "--kubeconfig", str(path))

    assert result.code == 1
    assert result.err.startswith("NoCluster: the API server is unreachable")
    assert "refused" in result.err


def test_no_configuration_is_explained(autoglm: Any, config: Path, tmp_path: Path) -> None:
    result = autoglm("deploy", "-c", str(config), "--kubeconfig", str(tmp_path / "none"))

    assert result.code == 1
    assert result.err.startswith("NoCluster: no cluster is configured")


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", (), "is empty"),
        ("model: 1\n", (), "model = 1: must be a string"),
        (FULL.replace("uri: org/chat", "url: x"), (), "spec.model.url"),
        (
            FULL,
            ("--namespace", "other"),
            'metadata.namespace = "models": differs from --namespace other',
        ),
        (FULL + "---" + FULL, ("--name", "x"), "has 2 documents; omit --name"),
        (FULL + "---" + FULL, (), "is the name of two documents"),
        (FULL, ("--name", "Upper"), "metadata.name"),
        ("kind: Service\n", (), "only AutoGLMDeployment"),
        ("[1]", (), "must be an AutoGLMDeployment"),
    ],
)
def test_a_wrong_file_exits_65_and_names_the_field(
    autoglm: Any, config: Path, text: str, flags: tuple[str, ...], message: str
) -> None:
    config.write_text(text)

    result = autoglm("deploy", "-c", str(config), "--dry-run", *flags)

    assert (result.code, result.out) == (65, "")
    assert result.err.startswith(str(config))
    assert message in result.err


@pytest.mark.usefixtures("kubeconfig")
def test_a_path_of_this_machine_is_remarked(autoglm: Any, config: Path) -> None:
    config.write_text(FULL.replace("org/chat", "./model"))

    assert "spec.model.uri = ./model is a path on this machine" in (
        autoglm("deploy", "-c", str(config)).err
    )


def test_following_ends_in_time() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    seen = list(follow(lambda: Progress("waits"), 2.5, lambda: clock[0], sleep))

    assert clock == [2.5]
    assert seen == [Progress("waits")]


def test_a_status_of_an_older_spec_says_nothing_of_this_one() -> None:
    assert not progress_of(live(observed=0)).is_ready
    assert progress_of(live()).is_ready


@pytest.mark.usefixtures("kubeconfig")
def test_a_profile_is_left_to_kubectl(autoglm: Any, config: Path, api: FakeApi) -> None:
    head = "apiVersion: autoglm.io/v1alpha1\nkind: AutoGLMProfile\nmetadata: {name: small}\n"
    config.write_text(f"{FULL}---\n{head}spec: {{}}\n")

    result = autoglm("deploy", "-c", str(config))

    assert "AutoGLMProfile small is not applied" in result.err
    assert result.code == 0 and len(api.seen) == 1
