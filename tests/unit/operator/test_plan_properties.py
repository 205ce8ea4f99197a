"""Properties of every plan, for any spec, wherever the operator is interrupted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fake_cluster import NOW, FakeCluster, resource
from tests.support.soak import examples

from autoglm.operator.plan import plan
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import Plan

# Seconds on an idle machine.
pytestmark = pytest.mark.timeout(120)
SETTINGS = OperatorSettings()
LIMITED = settings(
    max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

names = st.from_regex(r"[A-Z][A-Z_]{0,8}", fullmatch=True)
texts = st.text("ab$() =\"'é", max_size=8)
quantities = st.sampled_from(["1", "1000m", "0.5", "1024Mi", "2Gi", "100m"])
resource_lists = st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities)
metrics = st.lists(
    st.builds(
        lambda kind, target: {"type": kind, "target": target},
        st.sampled_from(
            ["CPU", "Memory", "QueueDepth", "RunningRequests", "KVCacheUsage", "TimeToFirstToken"]
        ),
        st.integers(1, 90),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda metric: metric["type"],
)
scalings = st.fixed_dictionaries(
    {"minReplicas": st.integers(1, 2), "maxReplicas": st.integers(2, 5), "metrics": metrics},
    optional={"actuator": st.sampled_from(["hpa", "keda"])},
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"annotations": st.dictionaries(names, texts)}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "nodeSelector": st.dictionaries(names, texts),
                "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
                "containers": st.just([{"name": "engine", "env": [{"name": "X", "value": "1"}]}]),
                "volumes": st.just([{"name": "data", "emptyDir": {}}]),
            },
        ),
    },
)


def variables(given: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in given.items()]


specs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "model": st.just({"uri": "org/model"}),
        "engine": st.fixed_dictionaries(
            {},
            optional={
                "args": st.dictionaries(
                    st.sampled_from(["reasoning_parser", "seed", "limit_mm_per_prompt"]),
                    st.one_of(texts, st.booleans(), st.integers(0, 9)),
                ),
                "env": st.dictionaries(names, texts, max_size=3).map(variables),
                "parallelism": st.just({"tensor": 2}),
            },
        ),
    },
    optional={
        "replicas": st.integers(0, 4),
        "scaling": scalings,
        "resources": st.fixed_dictionaries(
            {}, optional={"requests": resource_lists, "limits": resource_lists}
        ),
        "drain": st.just({"gracePeriodSeconds": 5}),
        "disruption": st.sampled_from([{"minAvailable": 1}, {"minAvailable": "50%"}]),
        "network": st.sampled_from([{"policy": "Strict"}, {"policy": "None"}]),
        "observability": st.just({"tracing": {"endpoint": "http://c.obs.svc:4317"}}),
        "template": templates,
        "suspend": st.booleans(),
    },
)
optional_kinds = st.frozensets(st.sampled_from(["PodMonitor", "ScaledObject"]))


def step(cluster: FakeCluster, writes: int | None = None) -> Plan:
    made = plan(cluster.observed(), SETTINGS, NOW)
    cluster.carry_out(made, writes)
    return made


def settle(cluster: FakeCluster, order: list[int]) -> None:
    """Until nothing moves and nothing is written."""
    for turn in range(500):
        made = step(cluster)
        moved = cluster.move(order[turn % len(order)])
        if not moved and not (made.apply or made.delete or made.status):
            return
    raise AssertionError(f"does not converge: {cluster.deployments()}")


@LIMITED
@given(specs, optional_kinds)
def test_a_second_run_writes_nothing(spec: dict[str, Any], kinds: frozenset[str]) -> None:
    cluster = FakeCluster(resource(**spec), optional_kinds=kinds)
    first = step(cluster)
    assert first.apply or "InvalidSpec" in str(first.status)
    # Pods come by the first run's writes, and the status reports them.
    step(cluster)

    third = step(cluster)

    assert (third.apply, third.delete, third.status, third.events) == ((), (), None, ())


@LIMITED
@given(specs, st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_difference(spec: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return value

    one, other = FakeCluster(resource(**spec)), FakeCluster(shuffled(resource(**spec)))

    assert step(one).apply == step(other).apply


@LIMITED
@given(
    before=specs,
    after=specs,
    deaths=st.lists(st.integers(0, 4), max_size=12),
    order=st.lists(st.integers(0, 9), min_size=5, max_size=20),
    has_gateways=st.booleans(),
)
def test_a_crash_after_any_write_changes_nothing_in_the_end(
    before: dict[str, Any],
    after: dict[str, Any],
    deaths: list[int],
    order: list[int],
    has_gateways: bool,
) -> None:
    def ended(crashes: list[int]) -> FakeCluster:
        cluster = FakeCluster(resource(**before), routable=set() if has_gateways else None)
        settle(cluster, order)
        cluster.resource = resource(**after) | {"status": cluster.resource["status"]}
        cluster.resource["metadata"]["generation"] = 2
        for turn, writes in enumerate(crashes):
            step(cluster, writes)
            cluster.move(order[turn % len(order)])
        settle(cluster, order)
        return cluster

    undisturbed, disturbed = ended([]), ended(deaths)

    assert disturbed.deployments() == undisturbed.deployments()
    assert _without_uids(disturbed) == _without_uids(undisturbed)
    assert disturbed.ready() == undisturbed.ready() == sum(disturbed.deployments().values())


def _without_uids(cluster: FakeCluster) -> Any:
    return {
        key: child | {"metadata": child["metadata"] | {"uid": ""}}
        for key, child in cluster.children.items()
    }


BROKEN = 103


@LIMITED
@given(
    desired=st.integers(1, 5),
    lengths=st.lists(st.integers(100, BROKEN), min_size=1, max_size=5),
    order=st.lists(st.integers(0, 9), min_size=30, max_size=60),
    has_gateways=st.booleans(),
)
def test_a_rollout_never_exceeds_one_beyond_desired_nor_loses_a_ready_replica(
    desired: int, lengths: list[int], order: list[int], has_gateways: bool
) -> None:
    cluster = FakeCluster(
        resource(replicas=desired),
        routable=set() if has_gateways else None,
        broken_flag=f"--max-model-len={BROKEN}",
    )
    settle(cluster, order)
    for turn, chosen in enumerate(order):
        if turn % 10 == 0 and lengths:
            # Also in the middle of a rollout, back and forth, and to one that never works.
            cluster.change(model={"maxModelLen": lengths.pop()})
        step(cluster)
        assert len(cluster.pods) <= desired + 1
        assert cluster.ready() >= desired
        cluster.move(chosen)
        assert len(cluster.pods) <= desired + 1
    cluster.change(model={"maxModelLen": 100})
    settle(cluster, order)
    assert list(cluster.deployments().values()) == [desired]
    assert cluster.ready() == desired


@LIMITED
@given(
    numbers=st.lists(st.integers(0, 6), min_size=2, max_size=5),
    lengths=st.lists(st.integers(100, BROKEN), min_size=5, max_size=5),
    order=st.lists(st.integers(0, 9), min_size=30, max_size=60),
)
def test_scaling_in_a_rollout_keeps_the_bounds_and_converges(
    numbers: list[int], lengths: list[int], order: list[int]
) -> None:
    cluster = FakeCluster(
        resource(replicas=numbers[0]),
        routable=set(),
        broken_flag=f"--max-model-len={BROKEN}",
    )
    settle(cluster, order)
    for turn, chosen in enumerate(order):
        if turn % 8 == 0 and numbers:
            cluster.change(model={"maxModelLen": lengths[turn % 5]}, replicas=numbers.pop())
        before = len(cluster.pods)
        step(cluster)
        # Scaling down takes time; until then there are no new ones either.
        assert len(cluster.pods) <= max(before, cluster.resource["spec"]["replicas"] + 1)
        cluster.move(chosen)
    wanted = cluster.resource["spec"]["replicas"]
    cluster.change(model={"maxModelLen": 100})
    settle(cluster, order)
    assert list(cluster.deployments().values()) == [wanted]
    assert cluster.ready() == wanted


@LIMITED
@given(specs, st.integers(0, 20))
def test_a_deleted_child_comes_back(spec: dict[str, Any], chosen: int) -> None:
    cluster = FakeCluster(resource(**spec))
    settle(cluster, [0])
    keys = sorted(cluster.children)
    if not keys:
        return
    before = _without_uids(cluster)
    del cluster.children[keys[chosen % len(keys)]]

    settle(cluster, [0])

    assert _without_uids(cluster) == before
