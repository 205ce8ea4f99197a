"""A real API server: what the chart gives to every model reaches pods, accounts and policies.

The operator has the rights of the chart and no others, so that they are shown to be enough.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.programs import program
from tests.support.operating import Cluster, until

from autoglm.kube.client import Client, configure
from autoglm.kube.kinds import CHILDREN, POD, RESOURCE, Kind

ACCOUNT, POLICY = CHILDREN[2], CHILDREN[6]
SECRET = Kind("v1", "Secret", "secrets")
CHART = Path(__file__).parents[3] / "deploy/helm/open-autoglm"
ROLE = "eks.amazonaws.com/role-arn"
RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
MODEL = {"model": {"uri": "a/b"}, "engine": {"type": "vllm"}}
SOME = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def values(team: str, priority: str) -> dict[str, Any]:
    return {
        "watchNamespaces": [team],
        "models": {
            "imagePullSecrets": ["registry"],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priorityClassName": priority,
            "proxy": {"httpsProxy": "http://proxy.example.com:3128"},
            "caBundle": {"configMapName": "company-ca"},
            "hubToken": {"secretName": "hub", "namespaces": [team]},
            "serviceAccount": {"annotations": {ROLE: "arn:aws:iam::1:role/models"}},
        },
    }


def rendered(release: str, home: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    command = [program("helm"), "template", release, str(CHART), "--namespace", home]
    text = json.dumps(given)
    done = subprocess.run(
        [*command, "--values", "-"], input=text, capture_output=True, text=True, check=True
    )
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture
def home(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """The namespace of the installation, with the token of the hub."""
    name = f"{namespace}-home"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl(
        "create", "secret", "generic", "hub", "-n", name, "--from-literal=token=hf"
    )
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def priority(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    name = f"serving-{namespace}"
    control_plane.kubectl("create", "priorityclass", name, "--value=1000")
    yield name
    control_plane.kubectl("delete", "priorityclass", name)


@pytest.fixture
def secret_of_the_team(control_plane: ControlPlane, namespace: str) -> None:
    """Named as the hub's, before the operator starts."""
    own = ("-n", namespace, "--from-literal=token=own")
    control_plane.kubectl("create", "secret", "generic", "hub", *own)


@pytest.fixture
async def installed(
    crd: ControlPlane, namespace: str, home: str, priority: str, tmp_path: Path
) -> AsyncIterator[Cluster]:
    """The team's namespace, with an operator as the chart sets it up for it."""
    objects = rendered(namespace, home, values(namespace, priority))
    crd.apply(*(body for body in objects if body["kind"] in RIGHTS))
    account = f"{namespace}-operator"
    document = json.loads(crd.kubeconfig.read_text())
    token = crd.kubectl("create", "token", account, "-n", home)
    document["users"][0]["user"] = {"token": token}
    own = tmp_path / "operator.json"
    own.write_text(json.dumps(document))
    client = Client(await configure(str(crd.kubeconfig)), "tests")
    cluster = Cluster(await configure(str(own)), client, namespace)
    await cluster.start(
        lease_namespace=home,
        gateway_namespace=home,
        model_defaults=setting(objects, account, "AUTOGLM_MODEL_DEFAULTS"),
    )
    yield cluster
    await cluster.stop_all()
    await client.close()
    for kind in ("clusterrolebinding", "clusterrole"):
        crd.kubectl("delete", kind, f"{namespace}-operator-profiles")


def setting(objects: list[dict[str, Any]], deployment: str, variable: str) -> str:
    (body,) = [
        o for o in objects if (o["kind"], o["metadata"]["name"]) == ("Deployment", deployment)
    ]
    (container,) = body["spec"]["template"]["spec"]["containers"]
    (found,) = [e["value"] for e in container["env"] if e["name"] == variable]
    return str(found)


async def pod_of(cluster: Cluster, name: str) -> dict[str, Any]:
    await until(lambda: cluster.is_ready(name), f"{name} ready")
    pods = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    label = "autoglm.io/deployment"
    pod: dict[str, Any]
    (pod,) = [pod for pod in pods if pod["metadata"]["labels"][label] == name]
    return pod


async def test_what_the_chart_gives_to_models_reaches_pod_account_and_policy(
    installed: Cluster, priority: str
) -> None:
    await installed.create("glm", **MODEL, resources=SOME)
    spec = (await pod_of(installed, "glm"))["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in spec["tolerations"]
    assert (spec["priorityClassName"], spec["priority"]) == (priority, 1000)
    (engine,) = spec["containers"]
    env = {variable["name"]: variable for variable in engine["env"]}
    assert env["HTTPS_PROXY"]["value"] == "http://proxy.example.com:3128"
    assert ".svc" in env["NO_PROXY"]["value"].split(",")
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    mounts = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"]}
    assert env["SSL_CERT_FILE"]["value"] == f"{mounts['ca-bundle']}/ca.crt"
    account = await installed.get(ACCOUNT, "glm-inference")
    assert account and account["metadata"]["annotations"][ROLE] == "arn:aws:iam::1:role/models"
    policy = await installed.get(POLICY, "glm")
    assert policy
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert {443, 3128} <= set(ports)


async def test_the_hubs_token_is_copied_and_deleted_with_the_last_model(
    installed: Cluster,
) -> None:
    await installed.create("glm", **MODEL, resources=SOME)

    async def copied() -> bool:
        return await installed.get(SECRET, "hub") is not None

    await until(copied, "the copy", 20)
    copy = await installed.get(SECRET, "hub")
    assert copy is not None
    assert base64.b64decode(copy["data"]["token"]) == b"hf"
    assert [owner["name"] for owner in copy["metadata"]["ownerReferences"]] == ["glm"]

    await installed.send("DELETE", RESOURCE.path(installed.namespace, "glm"))

    async def is_gone() -> bool:
        return not await copied()

    await until(is_gone, "the copy deleted by the garbage collector", 90)


async def test_a_secret_of_the_team_with_the_tokens_name_stays(
    secret_of_the_team: None, installed: Cluster
) -> None:
    await installed.create("glm", **MODEL, resources=SOME)
    await pod_of(installed, "glm")
    secret = await installed.get(SECRET, "hub")
    assert secret and base64.b64decode(secret["data"]["token"]) == b"own"


async def test_annotations_of_one_model_win_and_replace_its_replicas(installed: Cluster) -> None:
    own = {"annotations": {ROLE: "arn:aws:iam::1:role/glm"}}
    await installed.create("glm", **MODEL, resources=SOME)
    before = (await pod_of(installed, "glm"))["metadata"]["name"]
    await installed.change("glm", {"serviceAccount": own})

    async def is_replaced() -> bool:
        with contextlib.suppress(ValueError):
            return bool((await pod_of(installed, "glm"))["metadata"]["name"] != before)
        return False

    # Webhooks give a pod its identity once, when it is created.
    await until(is_replaced, "another pod")
    account = await installed.get(ACCOUNT, "glm-inference")
    assert account and account["metadata"]["annotations"][ROLE] == "arn:aws:iam::1:role/glm"


async def test_what_the_resource_says_itself_wins(installed: Cluster) -> None:
    env = [{"name": "HF_TOKEN", "value": "own"}]
    engine = {"type": "vllm", "env": env}
    await installed.create("glm", model={"uri": "a/b"}, engine=engine, resources=SOME)
    (container,) = (await pod_of(installed, "glm"))["spec"]["containers"]
    assert {"name": "HF_TOKEN", "value": "own"} in container["env"]
