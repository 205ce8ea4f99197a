"""Prints the messages and methods of a client's own stubs as JSON, with numbers and types."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any


def fields(message: Any) -> dict[str, list[Any]]:
    return {f.name: [f.number, f.type, f.is_repeated] for f in message.fields}


def messages(found: Any) -> Iterator[tuple[str, Any]]:
    """Each message by its full name, nested ones too."""
    for message in found:
        yield message.full_name, fields(message)
        yield from messages(message.nested_types)


def methods(service: Any) -> dict[str, list[Any]]:
    return {
        method.name: [
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in service.methods
    }


def describe(module: str) -> dict[str, Any]:
    file = importlib.import_module(module).DESCRIPTOR
    return {
        "messages": dict(messages(file.message_types_by_name.values())),
        "services": {s.full_name: methods(s) for s in file.services_by_name.values()},
    }


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1])))
