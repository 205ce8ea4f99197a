"""vLLM's sampling parameters from the API's, which have the same names.

Decides defaults: what the request leaves open, the model's generation_config fills, then vLLM.
Never judges a value; vLLM does, when the parameters are built. Called by `generation` and `chat`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from autoglm import v1
from autoglm.common import errors


def given(params: v1.SamplingParams) -> dict[str, Any]:
    """Return the parameters that the request sets, by name, as plain Python values."""
    found: dict[str, Any] = {}
    for field, value in params.ListFields():
        if field.name == "logit_bias":
            found[field.name] = {token: _decimal(bias) for token, bias in value.items()}
        elif isinstance(value, float):
            found[field.name] = _decimal(value)
        else:
            found[field.name] = value if isinstance(value, int) else list(value)
    return found


def _decimal(value: float) -> float:
    """Return the number that was written: 0.7 travels as the 32-bit float 0.699999988."""
    return float(str(np.float32(value)))


def constraint(wanted: v1.ResponseFormat) -> dict[str, Any] | None:
    """Return vLLM's structured outputs parameters for a response format, or None."""
    match wanted.WhichOneof("format"):
        case "json_object":
            return {"json_object": True} if wanted.json_object else None
        case "json_schema":
            return {"json": schema(wanted)}
        case "regex":
            return {"regex": wanted.regex}
        case "choice":
            return {"choice": list(wanted.choice.values)}
        case "grammar":
            return {"grammar": wanted.grammar}
    return None


def schema(wanted: v1.ResponseFormat) -> dict[str, Any]:
    return json_object(wanted.json_schema.schema, "response_format.json_schema.schema")


def json_object(text: str, field: str) -> dict[str, Any]:
    """Return a JSON object from a field of the request that holds one as text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"{field} is not JSON: {error}.", field=field) from error
    if not isinstance(value, dict):
        raise errors.InvalidRequest(f"{field} must be a JSON object.", field=field)
    return value
