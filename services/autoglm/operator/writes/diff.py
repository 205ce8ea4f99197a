"""Whether a child is as it should be, or has to be applied. Pure.

Two questions. Is everything that we want in what is there? The API server adds defaults and others
add fields of their own, so more may be there; lists with names are compared by name, quantities by
value. And is what we declared last time what we declare now? Else a field that we no longer want
would stay; an annotation with the hash of the last declaration tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoglm.kube.quantities import amount
from autoglm.operator.children.deployment import APPLIED
from autoglm.operator.observed import Conflict, Raw
from autoglm.operator.revision import digest
from autoglm.operator.writes.conflicts import without
from autoglm.operator.writes.merge import key_fields, name_of

Body = dict[str, Any]
_QUANTITIES: Final = frozenset({"averageValue", "sizeLimit"})
_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})
# Fields that the API server leaves out where they are false; elsewhere absent may mean true.
_ABSENT_WHEN_FALSE: Final = frozenset({"publishNotReadyAddresses"})


def sealed(body: Body) -> Body:
    """The body with the hash of itself."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED: digest(body)}
    return body | {"metadata": metadata | {"annotations": annotations}}


def differs(desired: Body, live: Raw | None, conflicts: Iterable[Conflict] = ()) -> bool:
    """Whether `desired` has to be applied. What others hold on to is not asked for again."""
    if live is None:
        return True
    held = [c.field for c in conflicts if (c.kind, c.name) == _identity(desired)]
    wanted = without(desired, held) if held else desired
    return not is_within(wanted, live, "")


def standing(
    conflicts: Iterable[Conflict], wanted: Iterable[Body], live: Mapping[tuple[str, str], Raw]
) -> list[Conflict]:
    """The conflicts that are still about something: ours is not what is there."""
    bodies = {_identity(body): body for body in wanted}
    return [
        c
        for c in conflicts
        if (k := (c.kind, c.name)) in bodies and _disagrees(bodies[k], live.get(k))
    ]


def _disagrees(wanted: Body, live: Raw | None) -> bool:
    return live is None or not is_within(wanted, live, "")


def _identity(body: Raw) -> tuple[str, str]:
    return body["kind"], body["metadata"]["name"]


def is_within(wanted: Any, live: Any, field: str) -> bool:
    """Whether all that `wanted` declares is in `live`; `field` is the name that both have."""
    # Plain types, since this is where most of a plan's time goes; objects are decoded JSON.
    if isinstance(wanted, dict):
        return _is_mapping_within(wanted, live, field)
    if isinstance(wanted, list):
        return wanted == live or _is_list_within(wanted, live, field)
    if wanted != live and field in _QUANTITIES:
        return live is not None and amount(wanted) == amount(live)
    if live is None:
        return wanted == "" or (wanted is False and field in _ABSENT_WHEN_FALSE)
    return bool(wanted == live)


def _is_mapping_within(wanted: dict[str, Any], live: Any, field: str) -> bool:
    if not wanted:
        # The API server leaves out many an empty value.
        return live is None or isinstance(live, dict)
    if not isinstance(live, dict):
        return False
    if field in _QUANTITY_MAPS:
        return all(amount(value) == amount(live.get(key)) for key, value in wanted.items())
    for key, value in wanted.items():  # noqa: SIM110 -- a third faster than all()
        if not is_within(value, live.get(key), key):
            return False
    return True


def _is_list_within(wanted: list[Any], live: Any, field: str) -> bool:
    if not isinstance(live, list):
        return not wanted and live is None
    keys = key_fields(field, wanted)
    if keys is None:
        return len(wanted) == len(live) and all(
            is_within(ours, theirs, field) for ours, theirs in zip(wanted, live, strict=True)
        )
    known = {name_of(item, keys): item for item in live if isinstance(item, dict)}
    return all(is_within(item, known.get(name_of(item, keys)), "") for item in wanted)
