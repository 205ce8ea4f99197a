"""Snapshots of the screen, as users see it."""

from collections import Counter
from dataclasses import replace

import pytest

from autoglm.cli.kube import ClusterState
from autoglm.cli.screen import Canvas, age
from autoglm.cli.status.cluster import status_text
from autoglm.cli.status.view import views


def shown(observed: ClusterState, now: float, *, is_full: bool = False, width: int = 4096) -> str:
    return status_text(
        views(observed, now), observed.not_accessible, Canvas(width), is_full=is_full
    )


def only(observed: ClusterState, name: str) -> ClusterState:
    chosen = [r for r in observed.resources if r["metadata"]["name"] == name]
    return replace(observed, resources=tuple(chosen))


def test_all_have_a_line_and_what_is_wrong_is_explained(cluster: ClusterState, now: float) -> None:
    assert shown(cluster, now).splitlines() == [
        "NAMESPACE  NAME   PHASE      READY  ROUTABLE  REVISION  MODEL          AGE    URL",
        "models     chat   Degraded   1/2    1/2       5f2c9a1b  Qwen/Qwen3-8B  3h05m  "
        "http://llm.example.com",
        "models     embed  Ready      1/1    1/1       0a1b2c3d  BAAI/bge-m3    2d0h   "
        "http://llm.example.com",
        "models     night  Suspended  0/0    ?         -         echo           42s    -",
        "",
        "models/chat is not healthy",
        "  Ready is False, Degraded is True (OutOfMemory)",
        "  Last failure: OutOfMemory, exit code 69, pod chat-5f2c9a1b-6d9f7-x7k2p",
        "    there is not enough memory (KV cache [8 GiB]): lower --max-model-len",
        "What to do",
        "  lower spec.engine.gpuMemoryUtilization or spec.model.maxModelLen, quantize, raise "
        "spec.engine.parallelism.tensor, or raise spec.resources; `autoglm size` computes what "
        "the model needs",
        "  kubectl logs chat-5f2c9a1b-6d9f7-x7k2p -n models -c engine --previous",
        "  kubectl autoglm explain chat -n models",
        "Pods",
        "  NAME                       STATE             READY  ROUTABLE  RESTARTS  AGE     NODE   "
        "REVISION",
        "  chat-5f2c9a1b-6d9f7-x7k2p  CrashLoopBackOff  no     no        4         10m00s  gpu-2  "
        "5f2c9a1b",
        "  chat-5f2c9a1b-6d9f7-aaaaa  Running           yes    yes       0         3h04m   gpu-1  "
        "5f2c9a1b",
        "Warnings of the last hour",
        "  AGE    COUNT  OBJECT                         REASON   MESSAGE",
        "  1m30s  12     Pod/chat-5f2c9a1b-6d9f7-x7k2p  BackOff  Back-off restarting failed "
        "container engine",
    ]


def test_a_healthy_resource_has_details_when_it_is_named(cluster: ClusterState, now: float) -> None:
    observed = replace(only(cluster, "embed"), not_accessible=(("events in models", "forbidden"),))
    assert shown(observed, now, is_full=True).splitlines()[3:] == [
        "models/embed is healthy",
        "Pods",
        "  NAME                        STATE    READY  ROUTABLE  RESTARTS  AGE    NODE   REVISION",
        "  embed-0a1b2c3d-84c5b-bbbbb  Running  yes    yes       0         1d23h  gpu-1  0a1b2c3d",
        "Autoscaler",
        "  1 to 4 replicas, 1 current, 1 desired; cpu 35% of 80%, vllm_num_requests_waiting ? of 4",
        "",
        "Not accessible",
        "  events in models: forbidden",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_wraps_and_loses_nothing(
    cluster: ClusterState, now: float, width: int
) -> None:
    wide = shown(only(cluster, "chat"), now)
    narrow = shown(only(cluster, "chat"), now, width=width)
    assert max(map(len, narrow.splitlines())) <= width
    # What goes below its row has the name of its column again.
    assert not Counter("".join(wide.split())) - Counter("".join(narrow.split()))


def test_ages_have_two_units() -> None:
    assert [age(s) for s in (None, 42, 430, 11100, 1051200)] == [
        *("-", "42s", "7m10s", "3h05m", "12d4h"),
    ]
