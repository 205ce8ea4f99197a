"""A user's pod template changes what it may, and nothing that would harm others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fake_cluster import resource

from autoglm.api import InvalidSpec, parse
from autoglm.operator.children.deployment import pod_template
from autoglm.operator.children.metadata import Context
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.template.template import with_template

CONTEXT = Context(
    parse(resource(model={"uri": "org/model"}, engine={})),
    OperatorSettings(),
)


def merged(spec: dict[str, Any] | None = None, **template: Any) -> dict[str, Any]:
    overrides = template | ({} if spec is None else {"spec": spec})
    return with_template(pod_template(CONTEXT), overrides)


def engine(**container: Any) -> dict[str, Any]:
    first: dict[str, Any] = merged({"containers": [{"name": "engine", **container}]})["spec"][
        "containers"
    ][0]
    return first


def refused(spec: Any = None, **template: Any) -> list[str]:
    overrides = template | ({} if spec is None else {"spec": spec})
    with pytest.raises(InvalidSpec) as raised:
        with_template(pod_template(CONTEXT), overrides)
    return [problem.path.removeprefix("spec.template.") for problem in raised.value.problems]


def test_no_template_changes_nothing() -> None:
    assert merged() == pod_template(CONTEXT)


def test_scheduling_is_the_users() -> None:
    wishes = {
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priorityClassName": "serving",
    }

    assert merged(wishes)["spec"] == pod_template(CONTEXT)["spec"] | wishes


def test_variables_merge_by_name() -> None:
    before = pod_template(CONTEXT)["spec"]["containers"][0]["env"]
    new = {"name": "A", "value": "1"}
    secret = {"name": "HOME", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}

    env = engine(env=[new, secret])["env"]

    assert [e for e in env if e["name"] != "HOME"] == [
        *(e for e in before if e["name"] != "HOME"),
        new,
    ]
    assert secret in env


def test_a_volume_is_replaced_whole() -> None:
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}

    assert claim in merged({"volumes": [claim]})["spec"]["volumes"]


def test_an_oci_image_may_be_a_volume() -> None:
    """The restricted standard of Kubernetes allows it, and it is read-only."""
    image = {"name": "weights", "image": {"reference": "registry.example.com/glm:1"}}

    assert image in merged({"volumes": [image]})["spec"]["volumes"]


def test_a_probe_keeps_what_is_not_overridden() -> None:
    probe = engine(startupProbe={"failureThreshold": 9})["startupProbe"]

    assert (probe["failureThreshold"], probe["httpGet"]["port"]) == (9, 9090)


def test_another_kind_of_probe_replaces_ours() -> None:
    probe = engine(livenessProbe={"grpc": {"port": 50051}})["livenessProbe"]

    assert "httpGet" not in probe


def test_null_removes() -> None:
    assert "lifecycle" not in engine(lifecycle=None)


def test_null_does_not_remove_the_profile() -> None:
    pod = merged(
        {"securityContext": None, "containers": [{"name": "engine", "securityContext": None}]}
    )["spec"]

    before = pod_template(CONTEXT)["spec"]
    assert pod["securityContext"] == before["securityContext"]
    assert pod["containers"][0]["securityContext"] == before["containers"][0]["securityContext"]


def test_containers_of_a_users_own_get_the_profile() -> None:
    pod = merged({"containers": [{"name": "logs", "image": "x"}]})["spec"]

    assert [c["name"] for c in pod["containers"]] == ["engine", "logs"]
    assert pod["containers"][1]["securityContext"] == pod["containers"][0]["securityContext"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"hostNetwork": True}, "spec.hostNetwork"),
        ({"hostPID": True}, "spec.hostPID"),
        ({"serviceAccountName": "admin"}, "spec.serviceAccountName"),
        ({"automountServiceAccountToken": True}, "spec.automountServiceAccountToken"),
        ({"nodeName": "n1"}, "spec.nodeName"),
        ({"terminationGracePeriodSeconds": 1}, "spec.terminationGracePeriodSeconds"),
        ({"ephemeralContainers": []}, "spec.ephemeralContainers"),
        ({"$patch": "replace"}, "spec.$patch"),
        ({"securityContext": {"runAsUser": 0}}, "spec.securityContext.runAsUser"),
        ({"securityContext": {"runAsNonRoot": False}}, "spec.securityContext.runAsNonRoot"),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            "spec.securityContext.seccompProfile.type",
        ),
        ({"securityContext": "none"}, "spec.securityContext"),
        (
            {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
            "spec.volumes[name=host].hostPath",
        ),
        (
            {"volumes": [{"name": "cache", "hostPath": {"path": "/"}}]},
            "spec.volumes[name=cache].hostPath",
        ),
        *(
            (
                {
                    "volumes": [
                        {"name": "v", "projected": {"sources": [{"secret": {}}, {kind: {}}]}}
                    ]
                },
                f"spec.volumes[name=v].projected.sources[1].{kind}",
            )
            for kind in ("serviceAccountToken", "podCertificate", "later")
        ),
        ({"containers": [{"name": "mine"}]}, "spec.containers[name=mine].image"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name"),
        ({"containers": None}, "spec.containers"),
        ({"volumes": ["x"]}, "spec.volumes"),
    ],
)
def test_what_would_harm_others_is_refused_by_its_name(spec: dict[str, Any], path: str) -> None:
    assert refused(spec) == [path]


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
        (
            {"securityContext": {"allowPrivilegeEscalation": True}},
            "securityContext.allowPrivilegeEscalation",
        ),
        (
            {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
            "securityContext.capabilities.add",
        ),
        (
            {"securityContext": {"capabilities": {"drop": []}}},
            "securityContext.capabilities.drop",
        ),
        ({"securityContext": {"procMount": "Unmasked"}}, "securityContext.procMount"),
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
        ({"ports": [{"containerPort": 1, "hostPort": 1}]}, "ports.hostPort"),
        (
            {"livenessProbe": {"httpGet": {"host": "evil", "port": 1}}},
            "livenessProbe.httpGet.host",
        ),
        *(
            (
                {"lifecycle": {hook: {handler: {"host": "evil", "port": 1}}}},
                f"lifecycle.{hook}.{handler}.host",
            )
            for hook in ("postStart", "preStop")
            for handler in ("httpGet", "tcpSocket")
        ),
    ],
)
def test_no_container_leaves_the_restricted_profile(container: Any, path: str) -> None:
    own = refused({"containers": [{"name": "engine", **container}]})
    sidecar = refused({"containers": [{"name": "x", "image": "y", **container}]})

    assert own == [f"spec.containers[name=engine].{path}"]
    assert f"spec.containers[name=x].{path}" in sidecar


def test_labels_that_others_go_by_are_the_operators() -> None:
    metadata = {"labels": {"autoglm.io/deployment": "other", "team": "a"}}

    assert refused(metadata=metadata) == ["metadata.labels.autoglm.io/deployment"]


def test_no_annotation_leaves_the_restricted_profile() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/engine"

    assert refused(metadata={"annotations": {name: "unconfined", "a": "b"}}) == [
        f"metadata.annotations.{name}"
    ]


def test_huge_and_deep_templates_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"x": deep}

    assert refused({"affinity": deep}) == ["spec.template"]
    assert refused({"nodeSelector": {"a": "x" * 70_000}}) == ["spec.template"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = """containers initContainers volumes env ports name image securityContext capabilities add
drop startupProbe httpGet host metadata labels annotations spec tolerations hostPath
imagePullSecrets seccompProfile type seLinuxOptions volumeMounts lifecycle"""
fields = st.sampled_from(FIELDS.split())
shaped = st.recursive(
    json_values,
    lambda inner: st.dictionaries(fields, inner | st.lists(inner, max_size=2), max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), shaped))
def test_any_template_is_accepted_or_rejected(template: Any) -> None:
    try:
        result = with_template(pod_template(CONTEXT), template)
    except InvalidSpec:
        return
    assert result["spec"]["securityContext"]["runAsNonRoot"] is True
