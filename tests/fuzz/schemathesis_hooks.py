"""Makes most generated requests reach the model. Loaded by schemathesis, in its own environment."""

from __future__ import annotations

from typing import Any

import schemathesis

SERVED = "echo"
TIMEOUT = "#/components/parameters/Timeout"


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Describe the server at hand: its one model, and no timeouts that end requests at once."""
    components = raw_schema["components"]
    components["parameters"]["Model"]["schema"]["enum"] = [SERVED]
    for schema in components["schemas"].values():
        for name in ("model", "model_name"):
            if name in schema.get("properties", {}):
                schema["properties"][name] |= {"enum": [SERVED]}
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            given = operation.get("parameters", [])
            operation["parameters"] = [p for p in given if p.get("$ref") != TIMEOUT]
