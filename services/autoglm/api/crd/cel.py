"""Rules between the fields of a resource as CEL, which the API server evaluates.

They are the rules of `rules` as far as CEL can express them: CEL does not see free-form values, so
only the operator checks the names of the echo engine's arguments. Called by `definition`. The cost
of each rule is bounded, because the length of every list, map and string of the schema is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from autoglm.api.profile import place_of_arg
from autoglm.api.rules import CACHE_FIELDS, CLAIM_FIELDS, FIELD_OF_ARG, ONE_CLAIM, WEIGHTS_FIELDS
from autoglm.api.rules.facts import engine_facts
from autoglm.api.rules.known import REVISION_TWICE
from autoglm.api.uri import MODELSCOPE, PODS_LOAD, SCHEMES

_SERVED = "(has({0}.model.servedName) ? {0}.model.servedName : self.metadata.name)"


@dataclass(frozen=True, slots=True)
class CelRule:
    """One entry of x-kubernetes-validations."""

    path: str
    """Path of the field that `self` refers to; empty for the resource, [] for items of a list."""
    rule: str
    message: str
    """The message of the API server: the field and how to correct it."""
    field: str = ""
    """The invalid field below `path`."""

    def written(self) -> dict[str, str]:
        entry = {"rule": self.rule, "message": self.message}
        if self.field:
            entry |= {"fieldPath": f".{self.field}", "reason": "FieldValueInvalid"}
        return entry


def _without_arg(name: str) -> str:
    """Return the condition that an argument is absent, in both spellings."""
    dashed = f" && !has(self.args.{name.replace('_', '__dash__')})" if "_" in name else ""
    return f"!has(self.args) || !has(self.args.{name}){dashed}"


def _is_unchanged(field: str) -> str:
    """Return the condition that an optional field has the value that it had."""
    return (
        f"has(self.{field}) == has(oldSelf.{field}) && "
        f"(!has(self.{field}) || self.{field} == oldSelf.{field})"
    )


_FACTS = engine_facts()
_QUANTIZATION = {"method": _FACTS.quantization, "kvCacheDtype": _FACTS.kv_cache_dtypes}


def _is_loadable(name: str) -> str:
    schemes = " || ".join(f"self.{name}.startsWith('{scheme}://')" for scheme in SCHEMES)
    return f"!self.{name}.contains('://') || {schemes}"


# A field with a default is present even when the manifest omits it.
_HAS_DEFAULT = {
    "quantization": "!has(self.model.quantization.method) && "
    "!has(self.model.quantization.kvCacheDtype)",
    "adapters": "self.model.adapters.size() == 0",
    "cache": "self.model.cache.type == 'emptyDir' && !has(self.model.cache.sizeLimit)",
}

CEL_RULES: tuple[CelRule, ...] = (
    CelRule(
        "",
        f"{_SERVED.format('self.spec')} == {_SERVED.format('oldSelf.spec')}",
        "spec.model.servedName can't change, since clients depend on it; add the new name to "
        "spec.model.aliases, or create another resource",
    ),
    CelRule(
        "",
        "!has(self.spec.model.aliases) || "
        f"!self.spec.model.aliases.exists(a, a == {_SERVED.format('self.spec')})",
        "spec.model.aliases repeats the served name; remove it there",
    ),
    CelRule(
        "",
        "!has(self.spec.model.adapters) || "
        f"!self.spec.model.adapters.exists(a, a.name == {_SERVED.format('self.spec')})",
        "spec.model.adapters has the served name; give the adapter another",
    ),
    CelRule(
        "spec.model",
        "!has(self.aliases) || !has(self.adapters) || "
        "!self.adapters.exists(a, self.aliases.exists(b, b == a.name))",
        "an alias and an adapter have the same name; give the adapter another",
        "adapters",
    ),
    CelRule(
        "spec",
        "self.engine.type != 'vllm' || has(self.model.uri)",
        "model.uri is required; give a hub name such as zai-org/GLM-4-9B-0414, or a path",
        "model",
    ),
    *(
        CelRule(
            "spec.model",
            f"!has(self.{name}) || {_is_loadable(name)}",
            f"{name} has a scheme that cannot be loaded; give {PODS_LOAD}",
            name,
        )
        for name in ("uri", "tokenizer")
    ),
    CelRule(
        "spec.model",
        "!has(self.revision) || !has(self.uri) || "
        f"!self.uri.startsWith('{MODELSCOPE}://') || !self.uri.contains('@')",
        f"revision {REVISION_TWICE}",
        "revision",
    ),
    CelRule(
        "spec.model.adapters[]",
        _is_loadable("uri"),
        f"uri has a scheme that cannot be loaded; give {PODS_LOAD}",
        "uri",
    ),
    *(
        CelRule(
            "spec",
            "self.engine.type != 'vllm' || has(self.engine.image) || has(self.profile) || "
            "!has(self.model.quantization) || "
            f"!has(self.model.quantization.{name}) || "
            f"self.model.quantization.{name} in {json.dumps(known)}",
            f"model.quantization.{name} is unknown to vLLM {_FACTS.version}; it has "
            f"{', '.join(known)}",
            "model",
        )
        for name, known in _QUANTIZATION.items()
    ),
    *(
        CelRule(
            "spec",
            f"self.engine.type != 'echo' || !has(self.model.{name})"
            + (f" || {_HAS_DEFAULT[name]}" if name in _HAS_DEFAULT else ""),
            f"model.{name} is not used by the echo engine; remove it, or set engine.type: vllm",
            "model",
        )
        for name in WEIGHTS_FIELDS
    ),
    *(
        CelRule(
            "spec.engine",
            f"self.type != 'vllm' || {_without_arg(name)}",
            f"args.{name} has a field of its own; set {field} instead",
            "args",
        )
        for name, field in FIELD_OF_ARG.items()
    ),
    CelRule(
        "spec.engine.env[]",
        "has(self.value) != has(self.valueFrom)",
        "needs either value or valueFrom; give one of the two",
    ),
    *(
        CelRule(
            "spec.model.cache",
            f"!has(self.{field}) || self.type == '{kind}'",
            f"{field} is for type {kind} only; remove it or set type: {kind}",
            field,
        )
        for field, kind in CACHE_FIELDS.items()
    ),
    CelRule(
        "spec.model.cache",
        "self.type != 'hostPath' || has(self.path)",
        "path is required for type hostPath; set it or choose another type",
        "path",
    ),
    CelRule(
        "spec.model.cache",
        "self.type != 'pvc' || has(self.claimName) != has(self.size)",
        f"type pvc {ONE_CLAIM}",
        "type",
    ),
    *(
        CelRule(
            "spec.model.cache",
            f"!has(self.{field}) || self.type != 'pvc' || has(self.size)",
            f"{field} is for a claim that the operator makes; set size, or remove it",
            field,
        )
        for field in CLAIM_FIELDS
    ),
    CelRule(
        "spec.model.cache",
        "!has(self.size) || !has(oldSelf.size) || quantity(string(self.size))"
        ".compareTo(quantity(string(oldSelf.size))) >= 0",
        "size can't shrink, since volumes only grow; keep it, or move to a smaller claim by "
        "claimName",
        "size",
    ),
    *(
        CelRule(
            "spec.model.cache",
            f"!has(self.size) || !has(oldSelf.size) || {_is_unchanged(field)}",
            f"{field} can't change, since a claim keeps what it was made with; keep it, or move "
            "to another claim by claimName",
            field,
        )
        for field in CLAIM_FIELDS
    ),
    CelRule(
        "spec.scaling",
        "self.minReplicas <= self.maxReplicas",
        "minReplicas is over maxReplicas; lower it or raise the other",
        "minReplicas",
    ),
    CelRule(
        "spec.scaling",
        "self.minReplicas > 0 || self.actuator == 'keda'",
        "minReplicas 0 needs actuator: keda; set that, or at least 1",
        "minReplicas",
    ),
    CelRule(
        "spec.scaling",
        "self.minReplicas > 0 || self.metrics.exists(m, m.type != 'CPU' && m.type != 'Memory')",
        "minReplicas 0 needs a metric that works without pods, such as QueueDepth; CPU and Memory "
        "are measured in pods",
        "minReplicas",
    ),
    CelRule(
        "spec.scaling.metrics[]",
        "self.type != 'CPU' && self.type != 'Memory' || double(int(self.target)) == self.target",
        "CPU and Memory take whole percent; round the target",
        "target",
    ),
    CelRule(
        "spec.scaling.metrics[]",
        "self.type != 'KVCacheUsage' || self.target <= 100.0",
        "target is percent of the KV cache; give at most 100",
        "target",
    ),
)


PROFILE_RULES: tuple[CelRule, ...] = tuple(
    CelRule(
        "spec.engine",
        _without_arg(name),
        f"args.{name} has a field of its own; set {place_of_arg(name)}",
        "args",
    )
    for name in FIELD_OF_ARG
)
"""The rules of AutoGLMProfiles."""


def visible_arguments() -> dict[str, dict[str, Any]]:
    """Return schemas of the engine arguments in rules; CEL sees only fields of the schema."""
    by_type = {
        "enable_lora": {"type": "boolean"},
        "enable_prefix_caching": {"type": "boolean"},
        "gpu_memory_utilization": {"type": "number"},
    }
    text = {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }
    arguments = {}
    for name, field in FIELD_OF_ARG.items():
        described = {"description": f"Rejected for vLLM; set {field} instead."}
        for spelling in {name, name.replace("_", "-")}:
            arguments[spelling] = by_type.get(name, text) | described
    return dict(sorted(arguments.items()))
