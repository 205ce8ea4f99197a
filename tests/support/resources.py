"""Specs of AutoGLMDeployments that every judge must judge alike: `api.parse` and an API server with
the CRD. Data only; tests/unit/api and tests/controlplane run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from autoglm.api.deployment import API_VERSION, KIND
from autoglm.api.rules import FIELD_OF_ARG

BOTH: Final = ("parse", "apiserver")


@dataclass(frozen=True, slots=True)
class Case:
    """A spec, and what is wrong with it."""

    name: str
    spec: Mapping[str, Any]
    problem: str | None = None
    """Words that each judge's message holds; None where the spec is good."""
    judges: tuple[str, ...] = BOTH
    """Judges that can detect it. The others let it pass."""

    def document(self, name: str = "case") -> dict[str, Any]:
        """The whole resource."""
        spec = deepcopy(dict(self.spec))
        metadata = {"name": name}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _vllm(**parts: Any) -> dict[str, Any]:
    return {"model": {"uri": "org/model", **parts.pop("model", {})}, **parts}


def _echo(**parts: Any) -> dict[str, Any]:
    engine = {"type": "echo", **parts.pop("engine", {})}
    return {"model": {}, **parts, "engine": engine}


def _scaling(**fields: Any) -> dict[str, Any]:
    return _vllm(scaling={"maxReplicas": 3, **fields})


def _metric(kind: str, target: float) -> dict[str, Any]:
    return _scaling(metrics=[{"type": kind, "target": target}])


def _cache(**fields: Any) -> dict[str, Any]:
    return _vllm(model={"cache": fields})


_KEDA = {"actuator": "keda", "minReplicas": 0}
_QUEUE = {"type": "QueueDepth", "target": 4}
# Values of arguments with a field of their own, where they are no text.
_OF_ARG = {
    "enable_lora": True,
    "enable_prefix_caching": False,
    "gpu_memory_utilization": 0.5,
    "tensor_parallel_size": 2,
}
_ADAPTER = {"name": "lora", "uri": "org/lora"}

GOOD: tuple[Case, ...] = (
    Case("the least", _vllm()),
    Case("the least echo", _echo()),
    Case("everything about a model", _vllm(
        model={
            "revision": "main", "servedName": "org/name:1", "aliases": ["a", "b"],
            "tokenizer": "/tokenizer", "maxModelLen": 1, "adapters": [_ADAPTER],
            "quantization": {"method": "fp8", "kvCacheDtype": "fp8"},
            "cache": {"type": "pvc", "claimName": "weights"},
        },
    )),
    Case("a cache on the node", _cache(type="hostPath", path="/var/cache/models")),
    Case("a claim of the operator", _cache(type="pvc", size="200Gi")),
    Case("a claim of one node", _cache(
        type="pvc", size=10, storageClassName="fast.local", accessMode="ReadWriteOnce",
    )),
    Case("a cache with a limit", _cache(sizeLimit="100Gi")),
    Case("an echo as an API server keeps it", _echo(
        model={"cache": {"type": "emptyDir"}, "quantization": {}, "adapters": []},
    )),
    Case("scaling with an autoscaler's number", {**_scaling(minReplicas=2), "replicas": 9}),
    Case("scaling to zero", _scaling(**_KEDA, metrics=[_QUEUE])),
    Case("every metric", _scaling(metrics=[
        {"type": "CPU", "target": 80}, {"type": "Memory", "target": 80.0},
        {"type": "QueueDepth", "target": 1.5}, {"type": "RunningRequests", "target": 16},
        {"type": "KVCacheUsage", "target": 99.5}, {"type": "TimeToFirstToken", "target": 0.5},
    ])),
    Case("behavior", _scaling(behavior={
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 3600, "selectPolicy": "Disabled"},
    })),
    Case("quantities as numbers and text", _vllm(
        resources={"limits": {"nvidia.com/gpu": 1, "memory": "1.5Gi"}},
        disruption={"minAvailable": "50%"}, engine={"sharedMemory": 0},
    )),
    Case("arguments of any kind", _vllm(engine={"args": {
        "limit_mm_per_prompt": {"image": 10}, "enforce-eager": True, "seed": 1,
        "allowed_origins": ["a", "b"],
    }})),
    Case("a secret in the environment", _vllm(engine={"env": [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "A", "value": ""},
    ]})),
    Case("a template", _vllm(template={"spec": {"nodeSelector": {"gpu": "l4"}}})),
    Case("suspended", _vllm(suspend=True, replicas=0)),
    Case("a name of the hub with its scheme", _vllm(model={"uri": "hf://org/model"})),
    *(
        Case(f"a model at {uri}", _vllm(model={"uri": uri}))
        for uri in (
            *("s3://bucket/model", "oci://host:5000/team/model:1", "pvc://claim/dir/model"),
            *("ms://org/model", "ms://org/model@v1"),
        )
    ),
    Case("a file of a hub's repository", _vllm(model={"uri": "org/model-GGUF:Q4_K_M"})),
    Case("names of another vLLM with an image of its own", _vllm(
        model={"quantization": {"method": "magic"}},
        engine={"image": "registry.example:5000/team/vllm:nightly", "args": {"new_flag": 1}},
    )),
    Case("an image by its digest", _vllm(engine={"image": f"vllm@sha256:{'0' * 64}"})),
    Case("as many GPUs as the model is split over", _vllm(
        engine={"parallelism": {"tensor": 2}}, resources={"limits": {"nvidia.com/gpu": 2}},
    )),
)  # fmt: skip

BAD: tuple[Case, ...] = (
    Case("vllm without weights", {"model": {}}, "is required; give a hub name"),
    *(
        Case(f"echo with {field}", _echo(model={field: value}), "is not used by the echo engine")
        for field, value in {
            "uri": "a/b",
            "revision": "main",
            "tokenizer": "a/b",
            "quantization": {"method": "fp8"},
            "adapters": [_ADAPTER],
            "cache": {"sizeLimit": "1Gi"},
        }.items()
    ),
    Case("an argument that echo lacks", _echo(engine={"args": {"rate": 1}}), "no such argument",
         judges=("parse",)),
    Case("the least over the most", _scaling(minReplicas=4), "lower it or raise the other"),
    Case("zero with an HPA", _scaling(minReplicas=0, metrics=[_QUEUE]), "actuator: keda"),
    Case("zero by CPU", _scaling(**_KEDA), "needs a metric that works without pods"),
    Case("part of a percent", _metric("CPU", 80.5), "whole percent"),
    Case("part of a percent of memory", _metric("Memory", 80.5), "whole percent"),
    Case("over a full cache", _metric("KVCacheUsage", 101), "percent of the KV cache"),
    Case("no target", _metric("CPU", 0), "greater than 0"),
    Case("a metric twice", _scaling(metrics=[_QUEUE, _QUEUE]), ""),
    Case("no metric", _scaling(metrics=[]), "at least 1 item"),
    Case("an unknown metric", _metric("GPU", 1), "GPU"),
    Case("a claim without a name", _cache(type="pvc"), "needs either claimName"),
    Case("a claim that exists and is made", _cache(type="pvc", claimName="x", size=1),
         "needs either claimName"),
    Case("a class of an existing claim", _cache(type="pvc", claimName="x", storageClassName="y"),
         "is for a claim that the operator makes"),
    Case("a mode of an existing claim", _cache(
        type="pvc", claimName="x", accessMode="ReadWriteOnce",
    ), "is for a claim that the operator makes"),
    Case("a size of no claim", _cache(size=1), "is for type pvc only"),
    Case("a class of no claim", _cache(storageClassName="x"), "is for type pvc only"),
    Case("a mode of no claim", _cache(accessMode="ReadWriteOnce"), "is for type pvc only"),
    Case("a directory without a path", _cache(type="hostPath"), "is required for type hostPath"),
    Case("a claim for no claim", _cache(claimName="x"), "is for type pvc only"),
    Case("a path for no directory", _cache(path="/x"), "is for type hostPath only"),
    Case("a limit on a claim", _cache(type="pvc", claimName="x", sizeLimit=1),
         "is for type emptyDir only"),
    Case("a path that climbs in a mount", _cache(type="hostPath", path="/a:b"), "path"),
    *(
        Case(f"the argument {name}", _vllm(engine={"args": {name: _OF_ARG.get(flag, "1")}}),
             f"set {field} instead")
        for flag, field in FIELD_OF_ARG.items()
        for name in sorted({flag, flag.replace("_", "-")})
    ),
    *(
        Case(f"a model at {uri}", _vllm(model={"uri": uri}), "cannot be loaded")
        for uri in ("gs://bucket/model", "https://hub.example/model")
    ),
    Case("a tokenizer elsewhere", _vllm(model={"tokenizer": "gs://a"}), "cannot be loaded"),
    Case("an adapter elsewhere", _vllm(model={"adapters": [{**_ADAPTER, "uri": "gs://a/b"}]}),
         "cannot be loaded"),
    Case("a revision in the uri and beside it", _vllm(
        model={"uri": "ms://org/model@v1", "revision": "v2"},
    ), "leave out one of the two"),
    Case("a name that ModelScope has not", _vllm(model={"uri": "ms://model"}),
         "is no location of ms://", judges=("parse",)),
    Case("a name that no hub has", _vllm(model={"uri": "a/b/c"}), "is no name of a hub",
         judges=("parse",)),
    Case("an unknown quantization", _vllm(model={"quantization": {"method": "magic"}}),
         "vLLM 0.32.0"),
    Case("an unknown cache", _vllm(model={"quantization": {"kvCacheDtype": "fp9"}}), "vLLM 0.32.0"),
    Case("an unknown argument", _vllm(engine={"args": {"enforce_eagre": True}}),
         "did you mean enforce_eager?", judges=("parse",)),
    *(
        Case(f"the image {image}", _vllm(engine={"image": image}), "image")
        for image in ("UPPER/Case:::x", "a b", "name:", "Name", "host.example/")
    ),
    Case("fewer GPUs than the model is split over", _vllm(
        engine={"parallelism": {"tensor": 2}}, resources={"limits": {"nvidia.com/gpu": 1}},
    ), "needs 2 GPUs", judges=("parse",)),
    *(
        Case(f"{quantity} of {name}", _vllm(resources={"limits": {name: quantity}}),
             "more than a node has", judges=("parse",))
        for name, quantity in {
            "memory": "1e30", "cpu": "1e9", "nvidia.com/gpu": "100000",
            "ephemeral-storage": "9e999999999",
        }.items()
    ),
    Case("a cache of no disk", _cache(sizeLimit="2000Pi"), "more than a node has",
         judges=("parse",)),
    Case("requests over the limits", _vllm(
        resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}},
    ), "over the limit", judges=("parse",)),
    Case("other devices than the limits", _vllm(
        resources={"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 1}},
    ), "differs from the limit", judges=("parse",)),
    Case("neither value nor source", _vllm(engine={"env": [{"name": "A"}]}),
         "needs either value or valueFrom"),
    Case("value and source", _vllm(engine={"env": [{"name": "A", "value": "", "valueFrom": {}}]}),
         "needs either value or valueFrom"),
    Case("a variable twice", _vllm(engine={"env": [{"name": "A", "value": "1"}] * 2}), ""),
    Case("an alias twice", _vllm(model={"aliases": ["a", "a"]}), ""),
    Case("an adapter twice", _vllm(model={"adapters": [_ADAPTER] * 2}), ""),
    Case("an alias like the name", _vllm(model={"aliases": ["case"]}), "remove it"),
    Case("an alias like the served name", _vllm(model={"servedName": "a", "aliases": ["a"]}),
         "remove it"),
    Case("an adapter like the name", _vllm(model={"adapters": [{**_ADAPTER, "name": "case"}]}),
         "another"),
    Case("an adapter like an alias", _vllm(model={"aliases": ["lora"], "adapters": [_ADAPTER]}),
         "another"),
    Case("a fraction of a replica", _vllm(replicas=1.5), "replicas"),
    Case("fewer than none", _vllm(replicas=-1), "replicas"),
    Case("more than can be", _vllm(replicas=10_001), "replicas"),
    Case("text for a number", _vllm(replicas="2"), "replicas"),
    Case("an unknown engine", _vllm(engine={"type": "sglang"}), "sglang"),
    Case("an unknown field", _vllm(modle={}), "modle"),
    Case("a negative quantity", _vllm(resources={"limits": {"cpu": -1}}), "cpu"),
    Case("no quantity", _vllm(resources={"limits": {"cpu": "many"}}), "cpu"),
    Case("too large a share", _vllm(disruption={"minAvailable": "150%"}), "minAvailable"),
    Case("a huge text", _vllm(model={"uri": "a" * 1025}), "uri"),
    Case("a name with a line break", _vllm(model={"servedName": "a\nb"}), "servedName"),
    Case("too many aliases", _vllm(model={"aliases": [f"a{i}" for i in range(33)]}), "aliases"),
)  # fmt: skip

CASES = GOOD + BAD
