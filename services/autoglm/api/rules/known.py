"""Rules about what the engine and a cluster know: names, URIs, images, amounts.

A resource with an image of its own, or that of a profile, may have another vLLM, so names of vLLM
are not checked there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import prod
from typing import Any, Final

from autoglm.api.problem import Problem
from autoglm.api.quantities import amount
from autoglm.api.rules.document import Document, Rule, at, engine_of, list_at
from autoglm.api.rules.facts import closest, engine_facts
from autoglm.api.schema import IMAGE
from autoglm.api.uri import location_of, problem_of_uri

_PEBI = Decimal(2**50)
# The most of a resource that a replica may request; larger ones are slips.
MOST: Final = {"cpu": Decimal(10_000), "memory": _PEBI, "ephemeral-storage": _PEBI}
MOST_DEVICES: Final = Decimal(1024)


def _uris_can_be_loaded(document: Document) -> Iterator[Problem]:
    if engine_of(document) != "vllm":
        return
    model = "spec.model"
    uris = [(f"{model}.{name}", at(document, f"{model}.{name}")) for name in ("uri", "tokenizer")]
    for index, adapter in enumerate(list_at(document, f"{model}.adapters")):
        uris.append((f"{model}.adapters[{index}].uri", at(adapter, "uri")))
    for path, uri in uris:
        if isinstance(uri, str) and (why := problem_of_uri(uri)):
            yield Problem(path, why, uri)


def _revision_is_given_once(document: Document) -> Iterator[Problem]:
    uri, revision = at(document, "spec.model.uri"), at(document, "spec.model.revision")
    if isinstance(uri, str) and revision is not None and location_of(uri).repository[1]:
        yield Problem("spec.model.revision", REVISION_TWICE, revision)


REVISION_TWICE: Final = "is in uri as well (@REVISION); leave out one of the two"


def _quantization_exists(document: Document) -> Iterator[Problem]:
    if not _has_pinned_vllm(document):
        return
    facts = engine_facts()
    for name, known in (("method", facts.quantization), ("kvCacheDtype", facts.kv_cache_dtypes)):
        path = f"spec.model.quantization.{name}"
        value = at(document, path)
        if isinstance(value, str) and value not in known:
            hint = closest(value, known)
            message = f"vLLM {facts.version} has no such {_NOUN[name]}; {hint}It has "
            yield Problem(path, message + ", ".join(known), value)


_NOUN = {"method": "quantization method", "kvCacheDtype": "format of the KV cache"}


def _arguments_exist(document: Document) -> Iterator[Problem]:
    args = at(document, "spec.engine.args")
    if not _has_pinned_vllm(document) or not isinstance(args, Mapping):
        return
    facts = engine_facts()
    for name, value in args.items():
        plain = str(name).replace("-", "_")
        if plain not in facts.arguments:
            hint = closest(plain, facts.arguments)
            message = (
                f"vLLM {facts.version} has no such argument; {hint}`vllm serve --help=all` lists "
                "them"
            )
            yield Problem(f"spec.engine.args.{name}", message, value)


def _has_pinned_vllm(document: Document) -> bool:
    has_own_image = at(document, "spec.engine.image") or at(document, "spec.profile")
    return engine_of(document) == "vllm" and not has_own_image


def _gpus_suffice(document: Document) -> Iterator[Problem]:
    split = at(document, "spec.engine.parallelism")
    if engine_of(document) != "vllm" or not isinstance(split, Mapping):
        return
    counts = [split.get(name, 1) for name in ("tensor", "pipeline", "data")]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        return
    needed = prod(counts)
    for kind in ("limits", "requests"):
        for device, quantity in _amounts(document, kind):
            if device.endswith("/gpu") and 0 < quantity < needed:
                yield Problem(
                    f"spec.resources.{kind}.{device}",
                    f"spec.engine.parallelism needs {needed} GPUs for each replica; give as many, "
                    "or lower the parallelism",
                    str(quantity),
                )


def _amounts_are_plausible(document: Document) -> Iterator[Problem]:
    for kind in ("limits", "requests"):
        for name, quantity in _amounts(document, kind):
            is_device = "/" in name
            most = MOST_DEVICES if is_device else MOST.get(name)
            if most is not None and quantity > most:
                shown = f"{most}" if is_device or name == "cpu" else "1Pi"
                message = f"is more than a node has; give at most {shown}"
                yield Problem(
                    f"spec.resources.{kind}.{name}", message, _given(document, kind, name)
                )
    for path in ("spec.model.cache.sizeLimit", "spec.engine.sharedMemory"):
        found = amount(at(document, path))
        if found is not None and found > _PEBI:
            yield Problem(path, "is more than a node has; give at most 1Pi", at(document, path))


def _requests_are_within_limits(document: Document) -> Iterator[Problem]:
    limits = dict(_amounts(document, "limits"))
    for name, quantity in _amounts(document, "requests"):
        limit = limits.get(name)
        if limit is None or quantity == limit or (quantity < limit and "/" not in name):
            continue
        message = "is over the limit; raise the limit, or lower it"
        if "/" in name:
            message = "differs from the limit; devices are set in limits alone"
        yield Problem(
            f"spec.resources.requests.{name}", message, _given(document, "requests", name)
        )


def _image_has_a_name(document: Document) -> Iterator[Problem]:
    image = at(document, "spec.engine.image")
    if isinstance(image, str) and not re.fullmatch(IMAGE, image):
        message = (
            "is no image; give [HOST/]NAME[:TAG][@DIGEST], with a name in lower case, such as "
            "registry.example/team/inference:v1"
        )
        yield Problem("spec.engine.image", message, image)


def _amounts(document: Document, kind: str) -> Iterator[tuple[str, Decimal]]:
    found = at(document, f"spec.resources.{kind}")
    for name, quantity in found.items() if isinstance(found, Mapping) else ():
        if (number := amount(quantity)) is not None:
            yield str(name), number


def _given(document: Document, kind: str, name: str) -> Any:
    return at(document, f"spec.resources.{kind}")[name]


KNOWN: tuple[Rule, ...] = (
    _uris_can_be_loaded,
    _revision_is_given_once,
    _quantization_exists,
    _arguments_exist,
    _gpus_suffice,
    _amounts_are_plausible,
    _requests_are_within_limits,
    _image_has_a_name,
)
