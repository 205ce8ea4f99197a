"""The plan of one reconcile."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_cluster import LATER, NOW, FakeCluster, pod_condition, resource
from tests.support.soak import examples

from autoglm.api import Spec
from autoglm.api.status import Status
from autoglm.kube.kinds import Key
from autoglm.operator.plan import plan
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import (
    Conflict,
    Event,
    LostName,
    ObservedObjects,
    Plan,
    Rejection,
)

SETTINGS = OperatorSettings(
    inference_image="inference:1", echo_image="echo:1", gateway_url="http://gateway:8080"
)


def step(cluster: FakeCluster) -> Plan:
    made = plan(cluster.observed(), SETTINGS, NOW)
    cluster.carry_out(made)
    return made


def settled(**spec: Any) -> FakeCluster:
    cluster = FakeCluster(resource(**spec), routable=set())
    for _ in range(40):
        step(cluster)
        cluster.move(0)
    return cluster


def condition(cluster: FakeCluster, type_: str) -> dict[str, Any]:
    (found,) = (c for c in cluster.resource["status"]["conditions"] if c["type"] == type_)
    return dict(found)


def status_of(cluster: FakeCluster, type_: str) -> tuple[str, str]:
    found = condition(cluster, type_)
    return found["status"], found["reason"]


def broken(cluster: FakeCluster) -> None:
    """Pods that aren't ready fail to start."""
    for pod in cluster.pods.values():
        if "conditions" not in pod["status"]:
            ended = {"exitCode": 66, "message": "ModelNotFound: no such model; check the path"}
            pod["status"]["containerStatuses"] = [
                {"name": "engine", "ready": False, "state": {"terminated": ended}}
            ]


def test_every_child_belongs_to_the_resource() -> None:
    cluster = FakeCluster(
        resource(scaling={"maxReplicas": 2}), optional_kinds=frozenset({"PodMonitor"})
    )

    bodies = step(cluster).apply

    names = [(body["kind"], body["metadata"]["name"]) for body in bodies]
    (deployment,) = (name for kind, name in names if kind == "Deployment")
    assert names == [
        ("ConfigMap", "m"),
        ("ServiceAccount", "m-inference"),
        ("Service", "m-pods"),
        ("NetworkPolicy", "m"),
        ("PodDisruptionBudget", "m"),
        ("Deployment", deployment),
        ("HorizontalPodAutoscaler", "m"),
        ("PodMonitor", "m"),
    ]
    for body in bodies:
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
            "uid-1",
            True,
            True,
        )
        assert body["metadata"]["labels"]["autoglm.io/deployment"] == "m"
        assert body["metadata"]["namespace"] == "ns"


def test_at_rest_the_status_is_complete_and_nothing_is_written() -> None:
    cluster = settled(replicas=2)

    assert step(cluster) == Plan(requeue_after=300.0)
    status = cluster.resource["status"]
    assert (status["phase"], status["replicas"], status["readyReplicas"]) == ("Ready", 2, 2)
    assert status["observedGeneration"] == 1
    assert status["url"] == "http://gateway:8080"
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Ready": ("True", "Ready"),
        "Available": ("True", "Serving"),
        "Progressing": ("False", "Complete"),
        "Degraded": ("False", "AsExpected"),
        "ModelLoaded": ("True", "Loaded"),
        "Routable": ("True", "InEveryGateway"),
        "ScalingActive": ("False", "Fixed"),
        "RolloutHealthy": ("True", "Complete"),
        "MonitoringActive": ("False", "NotInstalled"),
    }


def test_the_status_is_what_the_schema_has() -> None:
    status = settled(scaling={"maxReplicas": 2}).resource["status"]

    read = Status.model_validate_json(json.dumps(status))

    assert read.model_dump(mode="json", by_alias=True, exclude_defaults=True) == status


def test_time_passing_changes_nothing() -> None:
    cluster = settled()

    later = plan(cluster.observed(), SETTINGS, NOW + timedelta(days=1))

    assert later.status is None


def test_the_time_of_a_transition_is_that_of_the_change() -> None:
    cluster = settled(replicas=1)
    cluster.change(replicas=0)

    cluster.carry_out(plan(cluster.observed(), SETTINGS, NOW + timedelta(hours=1)))

    assert condition(cluster, "Ready")["lastTransitionTime"] == "2026-01-01T13:00:00Z"
    assert condition(cluster, "Degraded")["lastTransitionTime"] == "2026-01-01T12:00:00Z"


def test_the_order_of_conditions_is_not_a_change() -> None:
    cluster = settled()
    cluster.resource["status"]["conditions"].reverse()

    assert step(cluster) == Plan(requeue_after=300.0)


def test_a_resource_that_is_being_deleted_is_not_changed() -> None:
    cluster = settled()
    metadata = {"deletionTimestamp": LATER, "finalizers": ["example.com/backup"]}
    cluster.resource["metadata"] |= metadata

    made = plan(cluster.observed(), SETTINGS, NOW)
    assert (made.apply, made.delete) == ((), ())
    cluster.carry_out(made)

    assert cluster.resource["status"]["phase"] == "Terminating"
    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Terminating")
    assert "example.com/backup" in ready["message"]
    assert condition(cluster, "Available")["status"] == "True"
    assert [event.type for event in made.events] == ["Normal"]
    assert plan(cluster.observed(), SETTINGS, NOW) == Plan()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": -1}, "spec.replicas = -1"),
        ({"model": {"uri": "./weights"}, "engine": {}}, 'spec.model.uri = "./weights"'),
        (
            {
                "model": {"uri": "a/b"},
                "engine": {"parallelism": {"tensor": 4}},
                "resources": {"limits": {"nvidia.com/gpu": 2}},
            },
            "spec.resources.limits.nvidia.com/gpu",
        ),
        (
            {"model": {"uri": "a/b", "cache": {"type": "hostPath", "path": "/"}}, "engine": {}},
            'spec.model.cache.type = "hostPath"',
        ),
        ({"template": {"spec": {"hostNetwork": True}}}, "spec.template.spec.hostNetwork = true"),
    ],
)
def test_an_invalid_spec_changes_nothing_but_the_status(spec: Any, field: str) -> None:
    cluster = settled()
    before = dict(cluster.children)
    cluster.change(**spec)

    made = step(cluster)

    assert (made.apply, made.delete, cluster.children) == ((), (), before)
    ready = condition(cluster, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert field in ready["message"]
    assert cluster.resource["status"]["phase"] == "Degraded"
    assert [(e.type, e.reason) for e in made.events] == [("Warning", "InvalidSpec")]
    assert "of generation 1, the last valid one, stays in effect" in ready["message"]
    assert step(cluster) == Plan(requeue_after=300.0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
FIELDS = [alias for f in Spec.model_fields.values() if (alias := f.alias)]


@settings(max_examples=examples(200), deadline=None)
@given(
    spec=anything | st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4),
    name=st.sampled_from(["m", "-", "A b", "../x", 'a"b', "x" * 300]),
)
def test_nothing_that_a_user_can_write_stops_the_operator(spec: Any, name: str) -> None:
    document = resource(name) | {"spec": spec}

    made = plan(ObservedObjects(document), SETTINGS, NOW)

    assert made.status is not None
    assert bool(made.apply) != ("InvalidSpec" in str(made.status))


def test_a_bottomless_resource_is_invalid() -> None:
    bottomless: dict[str, Any] = {}
    for _ in range(100_000):
        bottomless = {"x": bottomless}

    made = plan(ObservedObjects(resource() | {"spec": bottomless}), SETTINGS, NOW)

    assert "spec.x: is nested deeper than 32 levels; flatten it" in str(made.status)
    assert not made.apply


@pytest.mark.parametrize(
    ("path", "engine"),
    [
        ("spec.engine.args", {"args": {"x": "a" * 70_000}}),
        ("spec.engine.env", {"env": [{"name": n, "value": "a" * 32_000} for n in "ABC"]}),
    ],
)
def test_what_no_command_line_can_hold_is_invalid(path: str, engine: dict[str, Any]) -> None:
    made = plan(ObservedObjects(resource(model={"uri": "a/b"}, engine=engine)), SETTINGS, NOW)

    assert f"{path}: has " in str(made.status)
    assert not made.apply


def test_a_cache_on_the_node_is_the_installations_to_allow() -> None:
    cluster = FakeCluster(
        resource(model={"uri": "a/b", "cache": {"type": "hostPath", "path": "/x"}}, engine={})
    )

    made = plan(cluster.observed(), SETTINGS.model_copy(update={"allow_host_path": True}), NOW)

    assert "Deployment" in [body["kind"] for body in made.apply]


def invalidated(**spec: Any) -> FakeCluster:
    cluster = settled(**spec)
    cluster.change(template={"spec": {"hostNetwork": True}})
    step(cluster)
    return cluster


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy", "ServiceAccount"])
def test_what_is_deleted_while_the_spec_is_invalid_is_made_again(kind: str) -> None:
    cluster = invalidated(replicas=2)
    before = copy.deepcopy(cluster.children)
    deleted = [key for key in cluster.children if key[0] == kind]
    for key in deleted:
        del cluster.children[key]

    made = step(cluster)

    assert [(b["kind"], b["metadata"]["name"]) for b in made.apply] == deleted
    for key in deleted:
        assert cluster.children[key].get("spec") == before[key].get("spec")


def test_counts_come_from_pods_while_the_spec_is_invalid() -> None:
    cluster = invalidated(replicas=2)
    assert cluster.resource["status"]["readyReplicas"] == 2
    assert status_of(cluster, "Available") == ("True", "Serving")
    cluster.pods.clear()
    cluster.routable = set()

    step(cluster)

    assert "readyReplicas" not in cluster.resource["status"] or (
        cluster.resource["status"]["readyReplicas"] == 0
    )
    assert status_of(cluster, "Available")[0] == "False"
    assert status_of(cluster, "Ready") == ("False", "InvalidSpec")
    assert status_of(cluster, "Degraded") == ("True", "InvalidSpec")
    assert status_of(cluster, "RolloutHealthy") == ("False", "InvalidSpec")


def test_replicas_follow_the_autoscaler_while_the_spec_is_invalid() -> None:
    cluster = invalidated(scaling={"maxReplicas": 5})
    cluster.change(replicas=4)

    step(cluster)

    assert list(cluster.deployments().values()) == [4]


def test_a_corrected_spec_is_in_effect_and_becomes_the_last_valid_one() -> None:
    cluster = invalidated(replicas=2)
    cluster.change(template={}, replicas=1)
    for _ in range(9):
        step(cluster)
        cluster.move(0)
        step(cluster)

    assert status_of(cluster, "Ready") == ("True", "Ready")
    kept = cluster.resource["status"]["lastValid"]
    assert kept["generation"] == 3
    assert json.loads(kept["spec"]) == {
        k: v for k, v in cluster.resource["spec"].items() if k != "replicas"
    }


def test_without_a_valid_spec_pods_that_run_are_counted() -> None:
    """As after an upgrade to a version that rejects what an older one took."""
    cluster = settled(replicas=2)
    del cluster.resource["status"]["lastValid"]
    cluster.change(template={"spec": {"hostNetwork": True}})
    before = dict(cluster.children)

    made = step(cluster)

    assert (made.apply, made.delete, cluster.children) == ((), (), before)
    status = cluster.resource["status"]
    assert (status["replicas"], status["readyReplicas"], status["phase"]) == (2, 2, "Degraded")
    assert status_of(cluster, "Available") == ("True", "Serving")
    cluster.pods.clear()
    step(cluster)
    assert status_of(cluster, "Available") == ("False", "InvalidSpec")
    assert cluster.resource["status"]["phase"] == "Failed"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"model": {"uri": 1}}', "{}"])
def test_a_last_valid_spec_that_cannot_be_read_is_none(text: str) -> None:
    cluster = settled()
    cluster.change(template={"spec": {"hostNetwork": True}})
    cluster.resource["status"]["lastValid"] = {"generation": 1, "revision": "x", "spec": text}

    assert step(cluster).apply == ()
    assert status_of(cluster, "Ready") == ("False", "InvalidSpec")


def test_an_invalid_new_resource_has_failed() -> None:
    cluster = FakeCluster(resource(replicas=-1))

    step(cluster)

    assert cluster.resource["status"]["phase"] == "Failed"


def test_suspending_ends_all_replicas_and_keeps_the_rest() -> None:
    cluster = settled(replicas=2)
    kinds = {kind for kind, _ in cluster.children}
    cluster.change(suspend=True)

    step(cluster)

    assert list(cluster.deployments().values()) == [0]
    assert {kind for kind, _ in cluster.children} == kinds
    step(cluster)
    assert cluster.resource["status"]["phase"] == "Suspended"
    assert status_of(cluster, "Ready") == ("False", "Suspended")


@pytest.mark.parametrize(("wanted", "replicas"), [(1, 2), (3, 3), (9, 4)])
def test_the_autoscalers_number_is_kept_within_its_bounds(wanted: int, replicas: int) -> None:
    cluster = FakeCluster(resource(replicas=wanted, scaling={"minReplicas": 2, "maxReplicas": 4}))

    step(cluster)

    assert list(cluster.deployments().values()) == [replicas]


def test_an_account_is_deleted_when_no_revision_uses_it_any_more() -> None:
    """As after an upgrade from a version that named accounts after the resource."""
    cluster = settled()
    account = cluster.children["ServiceAccount", "m-inference"]
    metadata = account["metadata"] | {"name": "m", "uid": "old"}
    cluster.children["ServiceAccount", "m"] = account | {"metadata": metadata}
    ((_, name),) = (key for key in cluster.children if key[0] == "Deployment")
    old = copy.deepcopy(cluster.children["Deployment", name])
    old["metadata"] |= {"name": "m-00000000", "uid": "old-deployment"}
    old["spec"]["template"]["spec"]["serviceAccountName"] = "m"
    cluster.children["Deployment", "m-00000000"] = old
    cluster.change(replicas=0)

    deleted = [[(r.kind, r.name) for r in step(cluster).delete]]
    while cluster.deployments().get("m-00000000") is not None:
        deleted.append([(r.kind, r.name) for r in step(cluster).delete])
        cluster.move(0)
    deleted.append([(r.kind, r.name) for r in step(cluster).delete])

    assert [d for d in deleted if d] == [[("Deployment", "m-00000000")], [("ServiceAccount", "m")]]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ServiceAccount", "m-inference"),
        ("NetworkPolicy", "m"),
        ("ConfigMap", "m"),
        ("Service", "m-pods"),
    ],
)
def test_no_pod_starts_while_what_it_depends_on_is_refused(kind: str, name: str) -> None:
    cluster = settled(replicas=1)
    ((_, deployment),) = (key for key in cluster.children if key[0] == "Deployment")
    seen = replace(cluster.observed(), rejected=(Rejection(kind, name, "exceeded quota: q"),))
    bigger = copy.deepcopy(cluster.resource)
    bigger["spec"] |= {"replicas": 3, "engine": {"type": "echo", "args": {"token_rate": 5}}}

    made = plan(replace(seen, resource=bigger), SETTINGS, NOW)
    cluster.carry_out(made)

    assert [b for b in made.apply if b["kind"] == "Deployment"] == []
    assert cluster.deployments() == {deployment: 1}
    assert status_of(cluster, "Available") == ("True", "Serving")
    assert status_of(cluster, "Progressing") == ("False", "Rejected")
    message = condition(cluster, "Ready")["message"]
    assert f"{kind} {name}" in message and "no pod is started" in message
    assert "raise the quota" in message


def test_a_revision_that_lacks_pods_makes_none_while_what_they_depend_on_is_refused() -> None:
    cluster = settled(replicas=3)
    ((_, deployment),) = (key for key in cluster.children if key[0] == "Deployment")
    for name in list(cluster.pods)[:2]:
        del cluster.pods[name]
    rejection = Rejection("NetworkPolicy", "m", "exceeded quota: q")

    made = plan(replace(cluster.observed(), rejected=(rejection,)), SETTINGS, NOW)

    (body,) = (b for b in made.apply if b["kind"] == "Deployment")
    assert (body["metadata"]["name"], body["spec"]["replicas"]) == (deployment, 1)
    assert (
        body["spec"]["template"] == cluster.children["Deployment", deployment]["spec"]["template"]
    )


def test_replicas_can_be_ended_while_what_they_depend_on_is_refused() -> None:
    cluster = settled(replicas=2)
    cluster.change(suspend=True)
    rejection = Rejection("NetworkPolicy", "m", "exceeded quota: q")

    cluster.carry_out(plan(replace(cluster.observed(), rejected=(rejection,)), SETTINGS, NOW))

    assert list(cluster.deployments().values()) == [0]


def test_a_refused_budget_holds_no_pod_back() -> None:
    cluster = FakeCluster(resource(replicas=2))
    rejection = Rejection("PodDisruptionBudget", "m", "exceeded quota: q")

    cluster.carry_out(plan(replace(cluster.observed(), rejected=(rejection,)), SETTINGS, NOW))

    assert list(cluster.deployments().values()) == [2]


def test_what_is_no_longer_wanted_is_deleted() -> None:
    cluster = settled(scaling={"maxReplicas": 2})
    cluster.change(scaling=None, network={"policy": "None"})

    deleted = step(cluster).delete

    assert [ref.kind for ref in deleted] == ["NetworkPolicy", "HorizontalPodAutoscaler"]


def test_objects_of_others_are_never_deleted() -> None:
    cluster = settled()
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": "ns", "uid": "x", "labels": {}},
    }
    cluster.children["ConfigMap", "theirs"] = foreign

    assert step(cluster).delete == ()


def test_a_manually_edited_child_is_repaired() -> None:
    cluster = settled()
    ((_, name),) = (key for key in cluster.children if key[0] == "Deployment")
    cluster.children["Deployment", name]["spec"]["template"]["spec"]["containers"][0]["image"] = "x"

    (body,) = step(cluster).apply

    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == "echo:1"


def test_fields_of_others_stay() -> None:
    cluster = settled()
    for child in cluster.children.values():
        child["metadata"].setdefault("annotations", {})["theirs"] = "x"
        child["theirs"] = {"a": 1}

    assert step(cluster) == Plan(requeue_after=300.0)


@pytest.mark.parametrize(
    ("spec", "warns"),
    [
        ({}, True),
        ({"resources": {"limits": {"nvidia.com/gpu": "1"}}}, False),
        ({"resources": {"requests": {"cpu": "4"}}}, False),
        ({"engine": {"parallelism": {"tensor": 2}}}, False),
        ({"template": {"spec": {"resourceClaims": [{"name": "gpu"}]}}}, False),
        (
            {
                "template": {
                    "spec": {
                        "containers": [{"name": "engine", "resources": {"limits": {"cpu": "4"}}}]
                    }
                }
            },
            False,
        ),
        ({"model": {}, "engine": {"type": "echo"}}, False),
    ],
)
def test_a_model_that_any_node_may_get_is_warned_of_once(spec: Any, warns: bool) -> None:
    cluster = FakeCluster(resource(**({"model": {"uri": "org/model"}, "engine": {}} | spec)))

    made = step(cluster)

    found = [event for event in made.events if event.reason == "NoResources"]
    assert [event.type for event in found] == ["Warning"] * warns
    types = {c["type"] for c in cluster.resource["status"]["conditions"]}
    assert ("ResourcesRequested" in types) is warns
    assert [event.reason for event in step(cluster).events].count("NoResources") == 0


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ({"model": {"uri": "org/model"}, "engine": {}}, "org/model"),
        ({"model": {}, "engine": {"type": "echo"}}, "echo"),
    ],
)
def test_the_status_names_what_is_served(spec: Any, source: str) -> None:
    cluster = FakeCluster(resource(**spec))
    step(cluster)
    assert cluster.resource["status"]["model"]["source"] == source


def test_an_invalid_spec_is_shown_with_its_model() -> None:
    cluster = FakeCluster(resource(model={"uri": "./weights"}, engine={}))
    step(cluster)
    assert cluster.resource["status"]["model"] == {"source": "./weights"}


def test_the_engines_diagnosis_reaches_the_status_at_once() -> None:
    cluster = FakeCluster(resource())
    step(cluster)
    broken(cluster)

    made = step(cluster)

    status = cluster.resource["status"]
    (pod,) = cluster.pods
    assert status["model"] == {
        "source": "echo",
        "state": "Failed",
        "lastFailure": {
            "reason": "ModelNotFound",
            "message": "no such model; check the path",
            "exitCode": 66,
            "pod": pod,
        },
    }
    assert status["phase"] == "Failed"
    for type_ in ("Ready", "Available", "ModelLoaded", "RolloutHealthy"):
        assert status_of(cluster, type_) == ("False", "ModelNotFound")
    assert made.events == (Event("Warning", "ModelNotFound", "no such model; check the path"),)
    assert step(cluster).events == ()


def test_a_failing_revision_leaves_the_old_one_serving() -> None:
    cluster = settled(replicas=2)
    cluster.change(model={"servedName": "other"})
    for _ in range(10):
        step(cluster)
        broken(cluster)

    assert sorted(cluster.deployments().values()) == [1, 2]
    assert cluster.ready() == 2
    assert cluster.resource["status"]["phase"] == "Degraded"
    assert status_of(cluster, "Available") == ("True", "Serving")
    assert "the old revision keeps serving" in condition(cluster, "RolloutHealthy")["message"]


def test_a_failure_is_reported_until_the_resource_is_complete() -> None:
    cluster = FakeCluster(resource())
    step(cluster)
    broken(cluster)
    step(cluster)
    for pod in cluster.pods.values():
        pod["status"] = {"phase": "Pending"}
    step(cluster)
    assert cluster.resource["status"]["model"]["lastFailure"]["reason"] == "ModelNotFound"

    cluster.move(0)
    step(cluster)

    assert cluster.resource["status"]["model"] == {"source": "echo", "state": "Loaded"}


def test_ready_waits_for_gateways() -> None:
    cluster = FakeCluster(resource(), routable=set())
    step(cluster)
    cluster.move(0)

    made = step(cluster)

    assert status_of(cluster, "Ready") == ("False", "NotRoutable")
    assert status_of(cluster, "Routable") == ("False", "NotInEveryGateway")
    assert status_of(cluster, "ModelLoaded") == ("True", "Loaded")
    assert made.requeue_after == 2.0


def test_without_a_gateway_readiness_has_to_do() -> None:
    cluster = FakeCluster(resource())
    step(cluster)
    cluster.move(0)
    step(cluster)

    assert status_of(cluster, "Ready") == ("True", "Ready")
    assert status_of(cluster, "Routable") == ("Unknown", "NoGateway")


def test_a_service_with_an_address_exists_only_where_clients_may_connect() -> None:
    cluster = settled(network={"policy": "None"})
    assert {("Service", "m"), ("Service", "m-pods")} <= set(cluster.children)

    cluster.resource["spec"]["network"] = {"policy": "Strict"}
    cluster.resource["metadata"]["generation"] += 1
    for _ in range(5):
        step(cluster)

    assert ("Service", "m") not in cluster.children
    assert ("Service", "m-pods") in cluster.children
    assert step(cluster).apply == ()


def test_conflicts_are_reported_and_not_forced() -> None:
    cluster = settled()
    cluster.children["Service", "m-pods"]["spec"]["clusterIP"] = "10.0.0.1"
    seen = cluster.observed()
    conflict = Conflict("Service", "m-pods", "argo", ".spec.clusterIP")
    made = plan(
        ObservedObjects(
            seen.resource, seen.children, seen.pods, routable=seen.routable, conflicts=(conflict,)
        ),
        SETTINGS,
        NOW,
    )

    cluster.carry_out(made)

    assert made.apply == ()
    assert status_of(cluster, "Degraded") == ("True", "Conflict")
    assert (
        "Service m-pods: .spec.clusterIP is owned by argo"
        in condition(cluster, "Degraded")["message"]
    )


def test_a_rejection_is_reported_with_the_api_servers_message() -> None:
    cluster = settled()
    seen = cluster.observed()
    rejection = Rejection("Service", "m-pods", "spec.ports: Invalid value")
    made = plan(
        ObservedObjects(
            seen.resource, seen.children, seen.pods, routable=seen.routable, rejected=(rejection,)
        ),
        SETTINGS,
        NOW,
    )

    cluster.carry_out(made)

    assert status_of(cluster, "Degraded") == ("True", "Rejected")
    assert "spec.ports: Invalid value" in condition(cluster, "Degraded")["message"]


@pytest.mark.parametrize(
    ("conditions", "expected", "advice"),
    [
        ([], ("Unknown", "Starting"), "not reported yet"),
        ([pod_condition("ScalingActive", "True", reason="X")], ("True", "Active"), "follows"),
        (
            [
                pod_condition(
                    "ScalingActive",
                    "False",
                    reason="FailedGetResourceMetric",
                    message="missing request for cpu in container engine of Pod m-1",
                )
            ],
            ("False", "MissingRequest"),
            "set spec.resources.requests.cpu",
        ),
        (
            [
                pod_condition(
                    "ScalingActive", "False", reason="FailedGetPodsMetric", message="no metrics."
                )
            ],
            ("False", "FailedGetPodsMetric"),
            "no metrics; install an adapter",
        ),
        (
            [
                pod_condition("ScalingActive", "True", reason="X"),
                pod_condition("ScalingLimited", "True", reason="TooManyReplicas"),
            ],
            ("True", "AtMaximum"),
            "raise it",
        ),
    ],
)
def test_a_failing_autoscaler_is_reported_with_the_remedy(
    conditions: Any, expected: tuple[str, str], advice: str
) -> None:
    cluster = settled(scaling={"maxReplicas": 2})
    cluster.children["HorizontalPodAutoscaler", "m"]["status"] = {"conditions": conditions}
    step(cluster)

    assert status_of(cluster, "ScalingActive") == expected
    assert advice in condition(cluster, "ScalingActive")["message"]


def test_missing_keda_is_reported() -> None:
    cluster = FakeCluster(resource(scaling={"maxReplicas": 2, "actuator": "keda"}))
    step(cluster)

    assert status_of(cluster, "ScalingActive") == ("False", "KedaMissing")


@pytest.mark.parametrize(
    ("kind", "condition_type", "reason"),
    [
        ("ScaledObject", "ScalingActive", "KedaUnavailable"),
        ("PodMonitor", "MonitoringActive", "PodMonitorUnavailable"),
    ],
)
def test_a_kind_that_cannot_be_listed_is_reported_and_not_considered_absent(
    kind: str, condition_type: str, reason: str
) -> None:
    cluster = FakeCluster(resource(scaling={"maxReplicas": 2, "actuator": "keda"}))
    seen = replace(cluster.observed(), unavailable_kinds={kind: "500 conversion webhook failed"})
    made = plan(replace(seen, optional_kinds=frozenset()), SETTINGS, NOW)
    assert made.status is not None
    (found,) = (c for c in made.status["conditions"] if c["type"] == condition_type)

    assert (found["status"], found["reason"]) == ("False", reason)
    assert "500 conversion webhook failed" in found["message"]
    assert {body["kind"] for body in made.apply}.isdisjoint({"ScaledObject", "PodMonitor"})


@pytest.mark.parametrize(
    ("lost", "reason", "message"),
    [
        ((LostName("gpt-4o", Key("other", "older")),), "NameTaken", "'gpt-4o' by other/older"),
        ((LostName("gpt-4o"),), "NameNotAllowed", "the namespace ns may not claim 'gpt-4o'"),
        (
            (LostName("a", Key("other", "older")), LostName("b")),
            "NameNotAllowed",
            "older resources serve 'a' by other/older",
        ),
    ],
)
def test_a_name_that_gateways_do_not_route_to_the_resource_is_reported(
    lost: tuple[LostName, ...], reason: str, message: str
) -> None:
    cluster = settled()
    made = plan(replace(cluster.observed(), lost_names=lost), SETTINGS, NOW)

    cluster.carry_out(made)

    assert status_of(cluster, "Ready") == ("False", reason)
    assert status_of(cluster, "Routable") == ("False", reason)
    assert status_of(cluster, "Degraded") == ("True", reason)
    assert status_of(cluster, "Available") == ("True", "Serving")
    assert message in condition(cluster, "Ready")["message"]
    assert [(e.type, e.reason) for e in made.events] == [("Warning", reason)]
    assert cluster.resource["status"]["phase"] == "Degraded"
    step(cluster)
    assert status_of(cluster, "Ready") == ("True", "Ready")


def test_each_reason_is_one_event() -> None:
    cluster = FakeCluster(resource(), routable=set())
    written: list[Event] = []
    for turn in range(20):
        written += step(cluster).events
        if turn % 3 == 2:
            cluster.move(0)

    assert [(e.type, e.reason) for e in written] == [
        ("Normal", "Pending"),
        ("Normal", "Loading"),
        ("Normal", "NotRoutable"),
        ("Normal", "Ready"),
    ]


def test_what_a_start_does_is_in_the_status_and_in_no_event() -> None:
    cluster = FakeCluster(resource(replicas=1), routable=set())
    for _ in range(3):
        step(cluster)
    assert status_of(cluster, "ModelLoaded") == ("False", "Loading")

    made = plan(replace(cluster.observed(), start="load 3.2 GB"), SETTINGS, NOW)
    cluster.carry_out(made)

    assert cluster.resource["status"]["model"]["progress"] == "load 3.2 GB"
    for type_ in ("Ready", "ModelLoaded"):
        assert condition(cluster, type_)["message"].endswith(": load 3.2 GB")
    assert not made.events


def test_a_pod_long_past_its_end_holds_nothing_up() -> None:
    cluster = settled(replicas=1)
    for pod in cluster.pods.values():
        pod["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    cluster.change(model={"servedName": "other"})

    step(cluster)

    assert sorted(cluster.deployments().values()) == [0, 1]
