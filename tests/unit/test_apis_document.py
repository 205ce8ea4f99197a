"""docs/apis.md lists every path of the table, with what it needs and how it is charged."""

from __future__ import annotations

import re
from pathlib import Path

from autoglm.v1 import inference_pb2, open_inference_pb2
from autoglm.validation import Billing
from autoglm.validation.http_apis import (
    DENIED,
    INFERENCE_GETS,
    INFERENCE_POSTS,
    MODEL,
    OWN,
    STORED,
)

LINES = (Path(__file__).parents[2] / "docs" / "apis.md").read_text().splitlines()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LINES if line[:3] == "| `"]
USAGE = "## Usage of the Open Inference Protocol"
CHARGED = {Billing.TOKENS: "tokens", Billing.FREE: "one request"}


def test_every_forwarded_path_is_listed_as_it_is() -> None:
    expected = [
        [
            f"`{method} {api.route}`",
            api.needs or "a generating model",
            CHARGED[api.billing],
            api.dialect.value,
        ]
        for method, apis in (("POST", INFERENCE_POSTS), ("GET", INFERENCE_GETS))
        for api in apis
    ]
    assert [row[:4] for row in ROWS if len(row) == 5] == expected


def test_every_grpc_method_of_clients_is_listed() -> None:
    section = LINES[LINES.index("## Over gRPC") : LINES.index(USAGE)]
    cells = [line.split("|")[1] for line in section if line[:3] == "| `"]
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    services = (
        inference_pb2.DESCRIPTOR.services_by_name["Inference"],
        open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    )
    assert sorted(listed) == sorted(m.name for service in services for m in service.methods)


def test_paths_of_stored_responses_are_listed() -> None:
    listed = [row[0] for row in ROWS]
    assert all(f"`{method} {path}`" in listed for method, path in STORED)


def test_the_gateways_own_and_the_denied_paths_are_listed() -> None:
    stored = {f"`{method} {path}`" for method, path in STORED}
    own = [[f"`GET {path.replace(MODEL, '{model}')}`", what] for path, what in OWN.items()]
    denied = [[f"`{path}`", reason] for path, reason in DENIED.items()]
    assert [row for row in ROWS if len(row) == 2 and row[0] not in stored] == own + denied
