"""What follows /v2/models/ is a model, a version of it, and an operation."""

from __future__ import annotations

import pytest

from autoglm.gateway.edges.rest_local import index, oip_get


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("m", ("m", "")),
        ("m/ready", ("m", "ready")),
        ("m/versions/1", ("m", "")),
        ("m/versions/1/ready", ("m", "ready")),
        ("m/config", ("m", "config")),
        ("m/versions/2/stats", ("m", "stats")),
        ("org/m/ready", ("org/m", "ready")),
        ("org/config", ("org/config", "")),
        ("org/config/config", ("org/config", "config")),
        ("ready", ("ready", "")),
    ],
)
def test_a_get_of_a_model_is_distinguished_from_its_name(rest: str, found: tuple[str, str]) -> None:
    assert oip_get(rest, {"m", "org/m", "org/config"}) == found


def test_the_index_names_what_is_here() -> None:
    assert "/v1/messages" in str(index()["post"])
    assert "/v1/models" in str(index()["get"])
