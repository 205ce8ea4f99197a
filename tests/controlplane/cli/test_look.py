"""status, explain and precheck against a real API server and the real operator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.kube.controlplane import HOLD, ControlPlane
from tests.support.processes import eventually

from autoglm import cli
from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import PLURAL
from autoglm.cli.status.remedies import BY_EXIT_CODE
from autoglm.common.process import ExitCode

CRD = Path(__file__).parents[3] / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
Autoglm = Callable[..., "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def crd(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(CRD), "--timeout=30s")
    return control_plane


@pytest.fixture
def autoglm(crd: ControlPlane, namespace: str, capsys: pytest.CaptureFixture[str]) -> Autoglm:
    def run(*args: str, kubeconfig: Path = crd.kubeconfig) -> Result:
        code = cli.run([*args, "-n", namespace, "--kubeconfig", str(kubeconfig)])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def operator(crd: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[None]:
    arguments = (
        f"--kubeconfig={crd.kubeconfig}",
        f"--namespace={namespace}",
        "--no-leader-election",
        "--metrics-address=127.0.0.1:0",
    )
    with (tmp_path / "operator.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoglm", "operator", *arguments], stdout=log, stderr=log
        )
        yield
        process.kill()
        process.wait()


def echo(namespace: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "autoglm.io/v1alpha1",
        "kind": "AutoGLMDeployment",
        "metadata": {"name": "echo", "namespace": namespace},
        "spec": {"model": {}, "engine": {"type": "echo"}, "replicas": 2, **more},
    }


def steps(autoglm: Autoglm) -> dict[str, str]:
    document = json.loads(autoglm("explain", "echo", "-o", "json").out)
    return {step["name"]: step["state"] for step in document["steps"]}


def test_resource_without_operator_is_not_well_and_says_why(
    autoglm: Autoglm, crd: ControlPlane, namespace: str
) -> None:
    crd.apply(echo(namespace))
    shown = autoglm("status")
    assert shown.code == 3
    assert "the operator has not reconciled the current spec" in shown.out
    explained = autoglm("explain", "echo")
    assert explained.code == 3
    assert "First failed step: Operator" in explained.out


@pytest.mark.usefixtures("operator")
def test_way_is_whole_up_to_the_gateway_that_is_not_there(
    autoglm: Autoglm, crd: ControlPlane, namespace: str
) -> None:
    crd.apply(echo(namespace))
    eventually(lambda: steps(autoglm)["Endpoints"] == "ok", 60, "ready endpoints")
    eventually(lambda: steps(autoglm)["Children"] == "ok", 60, "all children")
    assert steps(autoglm) == {
        "Spec": "ok",
        "Operator": "ok",
        "Children": "ok",
        "Pods": "ok",
        "Endpoints": "ok",
        "Gateways": "failed",
        "URL": "unknown",
    }
    shown = autoglm("status", "echo")
    assert shown.code == 3
    assert "Routable is Unknown (NoGateway)" in shown.out
    assert shown.out.count("  Running ") == 2


@pytest.mark.usefixtures("operator")
def test_engines_diagnosis_reaches_the_screen_with_its_remedy(
    autoglm: Autoglm, crd: ControlPlane, namespace: str
) -> None:
    held = {"metadata": {"annotations": {HOLD: "true"}}}
    crd.apply(echo(namespace, replicas=1, template=held))
    selector = ("pods", "-n", namespace, "-l", "autoglm.io/deployment=echo")
    eventually(lambda: bool(crd.get(*selector)["items"]), 60, "the pod")
    name = crd.get(*selector)["items"][0]["metadata"]["name"]
    terminated = {"exitCode": 69, "reason": "Error", "message": "OutOfMemory: too big: lower it"}
    status = {
        "name": "engine",
        "image": "x",
        "imageID": "",
        "ready": False,
        "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": terminated},
    }
    patch = json.dumps({"status": {"phase": "Running", "containerStatuses": [status]}})
    crd.kubectl(
        *("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge"),
        *("-p", patch),
    )
    eventually(lambda: "Last failure" in autoglm("status", "echo").out, 30, "the failure")
    shown = autoglm("status", "echo")
    assert f"Last failure: OutOfMemory, exit code 69, pod {name}" in shown.out
    assert f"\n  {BY_EXIT_CODE[ExitCode.OUT_OF_MEMORY]}\n" in shown.out
    assert f"kubectl logs {name} -n {namespace} -c engine --previous" in shown.out


def test_forbidden_lists_are_named_and_the_rest_is_shown(
    autoglm: Autoglm, crd: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    crd.apply(echo(namespace))
    here = ("-n", namespace)
    crd.kubectl("create", "role", "little", "--verb=get,list", "--resource=agd", *here)
    account = f"--serviceaccount={namespace}:default"
    crd.kubectl("create", "rolebinding", "little", "--role=little", account, *here)
    kubeconfig = tmp_path / "little.json"
    document = json.loads(crd.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": crd.kubectl("create", "token", "default", *here)}
    kubeconfig.write_text(json.dumps(document))
    shown = autoglm("status", kubeconfig=kubeconfig)
    assert "echo" in shown.out
    assert f"pods in {namespace}: " in shown.out.partition("Not accessible")[2]
    checked = autoglm("precheck", kubeconfig=kubeconfig)
    assert "cannot create autoglmdeployments, patch autoglmdeployments" in checked.out


def test_a_bottomless_resource_hides_no_other(
    autoglm: Autoglm, crd: ControlPlane, namespace: str
) -> None:
    crd.apply(echo(namespace))
    deep = '{"a":' * 9_000 + "1" + "}" * 9_000
    body = json.dumps(echo(namespace)["spec"])[:-1] + f',"template":{deep}}}'
    head = f'{{"apiVersion":"{API_VERSION}","kind":"{KIND}","metadata":{{"name":"deep"}}'
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
    crd.kubectl("create", f"--raw={path}", "-f", "-", text=f'{head},"spec":{body}}}')
    shown = autoglm("status")
    assert "echo" in shown.out and "deep" in shown.out
    assert autoglm("explain", "deep").out


def test_what_is_not_there_is_named(autoglm: Autoglm) -> None:
    assert autoglm("status").out.startswith("No AutoGLMDeployment found")
    missing = autoglm("explain", "nobody")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("NotFound: ") and "nobody" in missing.err


def test_precheck_of_a_cluster_without_the_product(
    autoglm: Autoglm, namespace: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "echo.json"
    manifest.write_text(json.dumps(echo(namespace)))
    checked = autoglm("precheck", "-f", str(manifest), "-o", "json")
    assert checked.code == 1
    found = {check["name"]: check for check in json.loads(checked.out)["checks"]}
    assert {name: check["outcome"] for name, check in found.items()} == {
        "cluster": "ok",
        "CRD": "ok",
        "operator": "fail",
        "gateway": "fail",
        f"namespace {namespace}": "ok",
        "deploy permission": "ok",
        "manifest echo": "ok",
        "metrics": "warn",
        "PodMonitor": "ok",
        "KEDA": "ok",
    }


def test_cluster_out_of_reach_is_no_traceback(
    autoglm: Autoglm, control_plane: ControlPlane
) -> None:
    control_plane.stop_api_server()
    try:
        shown, checked = autoglm("status"), autoglm("precheck")
    finally:
        control_plane.start_api_server()
    assert (shown.code, shown.err.startswith("NoCluster: ")) == (1, True)
    assert (checked.code, "is unreachable" in checked.out) == (1, True)
