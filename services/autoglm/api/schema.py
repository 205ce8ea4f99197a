"""The base class of all parts of the resource, and shared value types.

Maps field names (camelCase in documents, snake_case in Python), rejects unknown fields and values
that would need a conversion, and defines Kubernetes' value types. The CRD is generated from the
JSON schema of these types.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|e[+-]?[0-9]+)?$"
_QUANTITY_CHARACTERS = 32
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"([a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+(:[0-9]+)?|[a-zA-Z0-9-]+:[0-9]+|localhost)"
_TAG = r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@[a-z0-9]+:[0-9a-f]{32,128})?"
IMAGE: Final = rf"^({_HOST}/)?{_PART}(/{_PART})*{_TAG}$"
"""Pattern of an image's name, with host, tag and digest."""
_SHARE = r"^([0-9]|[1-9][0-9]|100)%$"


class Part(BaseModel):
    """A part of the resource: frozen, with camelCase field names, without unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        # `model_` is a prefix of fields here.
        protected_namespaces=(),
    )


def _quantity(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    is_short = isinstance(text, str) and len(text) <= _QUANTITY_CHARACTERS
    if not is_short or not re.fullmatch(_QUANTITY, text):
        raise ValueError('is not a Kubernetes quantity such as "500m", 2 or "16Gi"')
    return text


def _count_or_share(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        return value
    raise ValueError('is neither a number of pods nor a percentage, such as 1 or "50%"')


def _int_or_string(pattern: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": _QUANTITY_CHARACTERS,
            "pattern": pattern,
            "x-kubernetes-int-or-string": True,
        }
    )


def keyed_by(field: str) -> dict[str, Any]:
    """Return the JSON schema of a list whose items a field identifies (server-side apply)."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""JSON schema of a list of distinct values."""
Quantity = Annotated[str, BeforeValidator(_quantity), _int_or_string(_QUANTITY)]
CountOrShare = Annotated[Any, BeforeValidator(_count_or_share), _int_or_string(_SHARE)]
# A model name as clients write it: hub names (`org/name`) are allowed.
ModelName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$", max_length=128)
]
Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
