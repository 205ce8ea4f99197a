"""Weights are loaded once by a Job, before pods of a new revision are created."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.fake_cluster import NOW, FakeCluster, resource

from autoglm.operator.plan import plan
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import Plan, Progress

SETTINGS = OperatorSettings(inference_image="inference:1")
CACHE = {"type": "pvc", "size": "100Gi"}
MODEL = {"uri": "org/model", "cache": CACHE}
PINNED: dict[str, Any] = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


def cluster(**model: Any) -> FakeCluster:
    return FakeCluster(resource(model=MODEL | model, engine={}, **PINNED))


def step(of: FakeCluster, now: Any = NOW, **more: Any) -> Plan:
    result = plan(replace(of.observed(), **more), SETTINGS, now)
    of.carry_out(result)
    return result


def jobs(of: FakeCluster) -> list[dict[str, Any]]:
    return [child for (kind, _), child in of.children.items() if kind == "Job"]


def finish(of: FakeCluster, condition: str = "Complete") -> None:
    """The Job of the resource ends."""
    (job,) = [job for job in jobs(of) if "status" not in job]
    since = NOW.isoformat().replace("+00:00", "Z")
    entry = {"type": condition, "status": "True", "lastTransitionTime": since}
    job["status"] = {"conditions": [entry]}


def settle(of: FakeCluster) -> None:
    for _ in range(60):
        while of.move(0):
            pass
        if not (made := step(of)).apply and not made.delete and not of.move(0):
            return
    raise AssertionError("it does not settle")


def serving(**model: Any) -> FakeCluster:
    of = cluster(**model)
    step(of)
    finish(of)
    settle(of)
    return of


def condition(of: FakeCluster, type_: str = "WeightsLoaded") -> dict[str, Any]:
    found: dict[str, Any] = next(
        c for c in of.resource["status"]["conditions"] if c["type"] == type_
    )
    return found


def loader_pod(of: FakeCluster, **status: Any) -> dict[str, Any]:
    (job,) = jobs(of)
    owner = {"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}
    return {
        "metadata": {"name": "m-load-1", "labels": {}, "ownerReferences": [owner]},
        "spec": {},
        "status": status,
    }


def exited(code: int, message: str) -> dict[str, Any]:
    end = {"exitCode": code, "message": message}
    container = {"name": "loader", "ready": False, "state": {"terminated": end}}
    return {"phase": "Failed", "containerStatuses": [container]}


def test_no_pod_is_created_before_the_weights_are_loaded() -> None:
    of = cluster()
    step(of)
    step(of)
    assert len(jobs(of)) == 1 and of.deployments() == {}
    finish(of)
    step(of)
    assert list(of.deployments().values()) == [1]


def test_the_finished_job_stays_as_the_record_and_nothing_more_is_written() -> None:
    of = serving()
    assert condition(of)["status"] == "True"
    assert step(of) == Plan(requeue_after=300.0)
    assert len(jobs(of)) == 1


def test_pods_read_what_the_job_writes() -> None:
    of = serving()
    (job,) = jobs(of)
    (deployment,) = (c for (kind, _), c in of.children.items() if kind == "Deployment")
    loader = job["spec"]["template"]["spec"]["containers"][0]
    engine = deployment["spec"]["template"]["spec"]["containers"][0]
    assert loader["image"] == engine["image"]
    assert {"name": "cache", "mountPath": "/cache"} in loader["volumeMounts"]
    assert {"name": "cache", "mountPath": "/cache", "readOnly": True} in engine["volumeMounts"]
    path = next(a for a in engine["args"] if a.startswith("--model-path="))
    assert path.startswith("--model-path=/cache/models/org-model-")
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in engine["env"]
    assert all(entry["name"] != "HF_HUB_OFFLINE" for entry in loader["env"])


def test_a_changed_model_is_loaded_while_the_old_one_serves() -> None:
    of = serving()
    before = of.deployments()
    of.change(model=MODEL | {"uri": "org/other"})
    step(of)
    assert of.deployments() == before
    assert of.ready() == 1
    assert condition(of, "Available")["status"] == "True"
    assert condition(of, "Ready")["reason"] == "LoadingWeights"
    finish(of)
    settle(of)
    assert len(of.deployments()) == 1 and of.deployments() != before
    assert condition(of, "Ready")["status"] == "True"


def test_while_a_model_loads_the_old_one_is_scaled_as_before() -> None:
    of = serving()
    of.change(model=MODEL | {"revision": "v2"}, replicas=3)
    settle(of)
    assert list(of.deployments().values()) == [3]


def test_a_change_that_needs_no_download_does_not_load_again() -> None:
    of = serving()
    before = [job["metadata"]["name"] for job in jobs(of)]
    of.change(engine={"env": [{"name": "A", "value": "b"}]})
    settle(of)
    assert [job["metadata"]["name"] for job in jobs(of)] == before
    assert condition(of, "Ready")["status"] == "True"


def test_a_claim_that_was_created_again_is_filled_again() -> None:
    of = serving()
    claim = of.children["PersistentVolumeClaim", "m-weights"]
    claim["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    assert [ref.kind for ref in step(of).delete] == ["Job"]


def test_progress_is_in_the_status_and_the_condition() -> None:
    of = cluster()
    step(of)
    pod = loader_pod(of, phase="Running")
    step(of, loaders=(pod,), progress=Progress(3_100_000_000, 16_400_000_000, 45_000_000))
    found = condition(of)
    assert (found["status"], found["reason"]) == ("False", "Downloading")
    assert "3.1 of 16.4 GB at 45.0 MB/s" in found["message"]
    assert of.resource["status"]["weights"]["downloadedBytes"] == 3_100_000_000
    assert of.resource["status"]["phase"] == "Loading"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (76, "GatedModel: org/model is gated: accept its terms", "GatedModel"),
        (66, "ModelNotFound: org/model is no model", "ModelNotFound"),
        (78, "DiskFull: the volume is full; raise spec.model.cache.size", "DiskFull"),
        (1, "Traceback", "LoaderFailed"),
    ],
)
def test_a_failure_is_one_sentence_with_its_reason(code: int, text: str, reason: str) -> None:
    of = cluster()
    step(of)
    pod = loader_pod(of, **exited(code, text))
    finish(of, "Failed")
    step(of, loaders=(pod,))
    for type_ in ("WeightsLoaded", "Ready"):
        assert condition(of, type_)["reason"] == reason
        assert text.partition(": ")[2] in condition(of, type_)["message"]
    assert of.resource["status"]["phase"] == "Failed"


def test_a_failed_job_is_replaced_after_a_while_by_a_new_attempt() -> None:
    of = cluster()
    step(of)
    finish(of, "Failed")
    assert not step(of).delete
    assert [ref.kind for ref in step(of, NOW + timedelta(minutes=6)).delete] == ["Job"]
    step(of, NOW + timedelta(minutes=6))
    assert len(jobs(of)) == 1 and "status" not in jobs(of)[0]


def test_a_failed_load_leaves_the_old_model_serving() -> None:
    of = serving()
    of.change(model=MODEL | {"uri": "org/other"})
    step(of)
    finish(of, "Failed")
    settle(of)
    assert of.ready() == 1
    assert of.resource["status"]["phase"] == "Degraded"


def test_the_operators_claim_has_the_fields_of_the_spec_and_grows() -> None:
    cache = CACHE | {"storageClassName": "fast", "accessMode": "ReadWriteOnce"}
    of = serving(cache=cache)
    claim = of.children["PersistentVolumeClaim", "m-weights"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "100Gi"}},
        "storageClassName": "fast",
    }
    of.change(model=MODEL | {"cache": cache | {"size": "200Gi"}})
    bodies = step(of).apply
    assert [(b["kind"], b["spec"]["resources"]) for b in bodies] == [
        ("PersistentVolumeClaim", {"requests": {"storage": "200Gi"}})
    ]


def test_a_claim_stays_while_pods_of_an_old_revision_use_it() -> None:
    of = serving()
    of.change(model=MODEL | {"cache": {"type": "pvc", "claimName": "mine"}})
    assert all(ref.kind != "PersistentVolumeClaim" for ref in step(of).delete)
    assert ("PersistentVolumeClaim", "m-weights") in of.children
    finish(of)
    settle(of)
    assert ("PersistentVolumeClaim", "m-weights") not in of.children


def test_a_suspended_resource_loads_nothing() -> None:
    of = FakeCluster(resource(model=MODEL, engine={}, suspend=True))
    step(of)
    assert jobs(of) == []
    of.change(suspend=False)
    step(of)
    assert len(jobs(of)) == 1 and sum(of.deployments().values()) == 0


@pytest.mark.parametrize(
    "model",
    [
        {"uri": "/cache/glm", "cache": {"type": "pvc", "claimName": "mine"}},
        {"uri": "org/model"},
        {"uri": "oci://registry.example/glm:1"},
        {"uri": "org/model-GGUF:Q4_K_M", "cache": {"type": "pvc", "claimName": "mine"}},
    ],
    ids=["path", "no cache", "image", "one file of a hub"],
)
def test_where_a_job_has_nothing_to_load_there_is_none(model: dict[str, Any]) -> None:
    of = FakeCluster(resource(model=model, engine={}))
    step(of)
    assert jobs(of) == [] and len(of.deployments()) == 1
    assert all(c["type"] != "WeightsLoaded" for c in of.resource["status"]["conditions"])
