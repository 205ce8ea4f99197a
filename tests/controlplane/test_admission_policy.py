"""A real API server: the admission policy rejects what the operator calls InvalidSpec, no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.daemon import ClusterFailed
from tests.support.processes import eventually
from tests.support.resources import GOOD

from autoglm.api import InvalidSpec
from autoglm.api.deployment import API_VERSION, GROUP, KIND, VERSION
from autoglm.api.labels import PLURAL
from autoglm.operator.children.deployment import pod_template
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.status.validity import valid
from autoglm.operator.template.admission_policy import ALLOW_HOST_PATH, admission_policy, binding
from autoglm.operator.template.template import with_template

Spec = dict[str, Any]
Rejection = Callable[[Spec], str]
ROOT = Path(__file__).parents[2]
CRD = ROOT / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
KUSTOMIZE = ROOT / "deploy/kustomize/admission-policy"


def pod(**fields: Any) -> Spec:
    return {"model": {"uri": "a/b"}, "template": {"spec": fields}}


def engine(**fields: Any) -> Spec:
    return pod(containers=[{"name": "engine", **fields}])


def volume(**source: Any) -> Spec:
    return pod(volumes=[{"name": "v", **source}])


def vllm(**parts: Any) -> Spec:
    return {"model": {"uri": "a/b"}} | parts


def projected(kind: str) -> Spec:
    return volume(projected={"sources": [{"configMap": {"name": "c"}}, {kind: {}}]})


# By words that the rejection has; every rule of the policy has its own.
WRONG: dict[str, Spec] = {
    "spec.template.metadatas: a template": vllm(template={"metadatas": {}}),
    "spec.template.metadata.name: a template": vllm(template={"metadata": {"name": "x"}}),
    "spec.template.spec.hostNetwork: a template": pod(hostNetwork=True),
    "spec.template.spec.serviceAccountName": pod(serviceAccountName="admin"),
    "spec.template.spec.automountServiceAccountToken": pod(automountServiceAccountToken=True),
    "belong to the operator": vllm(template={"metadata": {"labels": {"autoglm.io/x": "y"}}}),
    "use securityContext.appArmorProfile": vllm(
        template={
            "metadata": {
                "annotations": {
                    "container.apparmor.security.beta.kubernetes.io/engine": "unconfined"
                }
            }
        }
    ),
    "spec.template.spec.volumes: use one of": volume(hostPath={"path": "/"}),
    "no credential of the Kubernetes API": projected("serviceAccountToken"),
    "image is required": pod(containers=[{"name": "own"}]),
    "privileged must be false": engine(securityContext={"privileged": True}),
    "allowPrivilegeEscalation must be": engine(securityContext={"allowPrivilegeEscalation": True}),
    "runAsNonRoot must be true": pod(securityContext={"runAsNonRoot": False}),
    "runAsUser must not be root": pod(
        initContainers=[{"name": "own", "image": "x", "securityContext": {"runAsUser": 0}}]
    ),
    "no capability may be added": engine(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    "procMount must be Default": engine(securityContext={"procMount": "Unmasked"}),
    "seccompProfile.type must be": pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
    "sysctls are not allowed": pod(securityContext={"sysctls": [{"name": "a", "value": "1"}]}),
    "remove hostPort": engine(ports=[{"containerPort": 1, "hostPort": 1}]),
    "host of a probe or a lifecycle hook": engine(
        lifecycle={"preStop": {"httpGet": {"port": 1, "host": "169.254.169.254"}}}
    ),
    "must not be relative to a file": {"model": {"uri": "./weights"}},
    "without --allow-host-path": {
        "model": {"uri": "a/b", "cache": {"type": "hostPath", "path": "/"}}
    },
    "fewer GPUs": vllm(
        engine={"parallelism": {"tensor": 4}}, resources={"limits": {"nvidia.com/gpu": 2}}
    ),
    "vLLM 0.32.0 has no such argument": vllm(engine={"args": {"enforce_eagre": True}}),
    "more than a node has": vllm(resources={"limits": {"memory": "1e30"}}),
    "the echo engine has no such argument": {
        "model": {},
        "engine": {"type": "echo", "args": {"rate": 1}},
    },
}
ALSO_WRONG: tuple[Spec, ...] = (
    projected("podCertificate"),
    engine(readinessProbe={"tcpSocket": {"port": 1, "host": "x"}}),
    {"model": {"uri": "a/b", "tokenizer": "~/t"}},
    {"model": {"uri": "a/b", "adapters": [{"name": "l", "uri": "../l"}]}},
    vllm(template={"metadata": {"annotations": {"app.kubernetes.io/x": "y"}}}),
)
RIGHT: tuple[Spec, ...] = (
    projected("downwardAPI"),
    projected("clusterTrustBundle"),
    engine(env=[{"name": "A", "value": "1"}], securityContext={"runAsUser": 1000}),
    engine(livenessProbe={"httpGet": {"port": 1, "path": "/"}}),
    pod(tolerations=[{"operator": "Exists"}], nodeSelector={"a": "b"}),
    pod(initContainers=[{"name": "own", "image": "x:1"}]),
    vllm(template={"metadata": {"labels": {"team": "a"}}}),
    vllm(engine={"parallelism": {"tensor": 2}}, resources={"limits": {"nvidia.com/gpu": "2"}}),
    vllm(engine={"parallelism": {"tensor": 2}}, resources={"limits": {"amd.com/gpu": 0}}),
    {"model": {}, "engine": {"type": "echo", "args": {"token-rate": 5}}},
)
# What the policy cannot evaluate is the operator's to judge.
MISTYPED: tuple[Spec, ...] = (
    vllm(template={"spec": "x"}),
    pod(containers="x"),
    pod(volumes=[{"name": "v", "projected": {"sources": "x"}}]),
    pod(containers=[{"name": "engine", "securityContext": None}]),
)


def document(spec: Spec, namespace: str, name: str = "case") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


@pytest.fixture(params=[False, True], ids=["", "allow-host-path"])
def allows_host_path(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextmanager
def enforced(
    cluster: ControlPlane, namespace: str, *, allow_host_path: bool = False
) -> Iterator[Rejection]:
    """The policy for this namespace only. Yields what the API server says to a spec, empty where
    it takes it."""
    policy, bound = admission_policy(), binding()
    for each in (policy, bound):
        each["metadata"]["name"] = namespace
    assert policy["spec"]["variables"][0] == ALLOW_HOST_PATH
    policy["spec"]["variables"][0]["expression"] = str(allow_host_path).lower()
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    bound["spec"] |= {"policyName": namespace, "matchResources": {"namespaceSelector": selector}}
    cluster.apply(policy, bound)

    with cluster.client() as api:
        objects = client.CustomObjectsApi(api)

        def rejected(spec: Spec) -> str:
            body = document(spec, namespace, "tried")
            where = (GROUP, VERSION, namespace, PLURAL)
            try:
                objects.create_namespaced_custom_object(*where, body, dry_run="All")
            except ApiException as error:
                return str(json.loads(error.body or "")["message"])
            return ""

        eventually(lambda: bool(rejected(pod(hostNetwork=True))), 60, "the policy in force")
        yield rejected
    kind = "validatingadmissionpolicy"
    cluster.kubectl("delete", f"{kind}/{namespace}", f"{kind}binding/{namespace}")


@pytest.fixture
def rejection(cluster: ControlPlane, namespace: str, allows_host_path: bool) -> Iterator[Rejection]:
    with enforced(cluster, namespace, allow_host_path=allows_host_path) as rejected:
        yield rejected


def is_valid(spec: Spec, *, allow_host_path: bool) -> bool:
    """As the operator judges."""
    settings = OperatorSettings(allow_host_path=allow_host_path)
    try:
        context = valid(document(spec, "ns"), settings)
        with_template(pod_template(context), context.spec.template)
    except InvalidSpec:
        return False
    return True


def test_common_mistakes_are_rejected_at_apply_with_the_field_and_the_way_out(
    rejection: Rejection, allows_host_path: bool
) -> None:
    wrong = {w: s for w, s in WRONG.items() if not (allows_host_path and "host-path" in w)}
    said = {words: rejection(spec) for words, spec in wrong.items()}

    assert {words: text for words, text in said.items() if words not in text} == {}
    assert [spec for spec in ALSO_WRONG if not rejection(spec)] == []
    for spec in (*wrong.values(), *ALSO_WRONG):
        assert not is_valid(spec, allow_host_path=allows_host_path)


def test_what_the_operator_takes_is_never_rejected(
    rejection: Rejection, allows_host_path: bool
) -> None:
    good = [dict(case.spec) for case in GOOD] + list(RIGHT)
    taken = [spec for spec in good if is_valid(spec, allow_host_path=allows_host_path)]
    assert len(taken) >= len(good) - 1

    assert [text for spec in taken if (text := rejection(spec))] == []


def test_what_the_policy_cannot_evaluate_is_left_to_the_operator(rejection: Rejection) -> None:
    said = [rejection(spec) for spec in MISTYPED]
    assert [text for text in said if "ValidatingAdmissionPolicy" in text] == []


def test_every_rule_of_the_policy_rejects_something() -> None:
    rules = admission_policy()["spec"]["validations"]
    fields = ("spec.template: ", "spec.template.metadata: a", "spec.template.spec: a")
    unseen = [r["message"] for r in rules if not any(words in r["message"] for words in WRONG)]
    # Their messages name the field that is too much.
    assert [m for m in unseen if not m.startswith(fields)] == []


def test_an_invalid_resource_that_exists_can_be_labelled_scaled_and_deleted(
    cluster: ControlPlane, namespace: str
) -> None:
    invalid = json.dumps(document(pod(hostNetwork=True), namespace))
    cluster.kubectl("create", "-f", "-", text=invalid)
    at = ("agd", "case", "-n", namespace)
    with enforced(cluster, namespace):
        cluster.kubectl("label", *at, "a=b")
        cluster.kubectl("annotate", *at, "a=b")
        cluster.kubectl("scale", *at, "--replicas=3")
        with pytest.raises(ClusterFailed, match="hostNetwork"):
            cluster.kubectl("patch", *at, "--type=merge", "-p", '{"spec":{"suspend":true}}')
        cluster.kubectl("patch", *at, "--type=merge", "-p", '{"spec":{"template":null}}')
        cluster.kubectl("delete", *at)


def test_kustomize_has_the_policy_as_the_api_server_keeps_it(cluster: ControlPlane) -> None:
    rendered = cluster.kubectl("kustomize", str(KUSTOMIZE))
    kept = json.loads(
        cluster.kubectl(
            "apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-", text=rendered
        )
    )["items"]
    sent = [d for d in yaml.safe_load_all(rendered) if d]
    kinds = [admission_policy()["kind"], binding()["kind"]]
    assert [d["kind"] for d in sent] == [d["kind"] for d in kept] == kinds
    for before, after in zip(sent, kept, strict=True):
        assert {k: after["spec"][k] for k in before["spec"] if k != "matchConstraints"} == {
            k: v for k, v in before["spec"].items() if k != "matchConstraints"
        }
