"""Which browsers' pages may use the REST port."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from autoglm.gateway.edges.cors import ANY, Cors
from autoglm.gateway.settings import GatewaySettings

APP = "https://app.example"
PREFLIGHT = {"origin": APP, "access-control-request-method": "POST"}


def test_without_allowed_origins_nothing_is_said() -> None:
    assert Cors().preflight(PREFLIGHT) is None
    assert Cors().response_headers(APP) == {}


@pytest.mark.parametrize(("allowed", "shown"), [(APP, APP), (ANY, ANY)])
def test_an_allowed_origin_may_send_its_credential_header(allowed: str, shown: str) -> None:
    headers = Cors((allowed,)).preflight(PREFLIGHT)
    assert headers is not None and headers["access-control-allow-origin"] == shown
    assert "POST" in headers["access-control-allow-methods"]
    # The wildcard alone would leave it out.
    assert "authorization" in headers["access-control-allow-headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example:8443", "null", ""])
def test_another_origin_is_not_named(origin: str) -> None:
    cors = Cors((APP, "http://localhost:3000"))
    assert cors.preflight(PREFLIGHT | {"origin": origin}) is None
    assert cors.response_headers(origin) == {"vary": "Origin"}


def test_an_options_request_of_no_preflight_is_none() -> None:
    assert Cors((APP,)).preflight({"origin": APP}) is None


def test_responses_vary_by_origin_only_where_they_do() -> None:
    assert Cors((APP,)).response_headers(APP)["vary"] == "Origin"
    assert "vary" not in Cors((ANY,)).response_headers(APP)


def test_cookies_of_browsers_are_never_let_in() -> None:
    for allowed in (APP, ANY):
        cors = Cors((allowed,))
        said = {**(cors.preflight(PREFLIGHT) or {}), **cors.response_headers(APP)}
        assert "access-control-allow-credentials" not in said


def test_pages_may_read_what_a_client_needs() -> None:
    exposed = Cors((ANY,)).response_headers(APP)["access-control-expose-headers"]
    for name in ("x-request-id", "request-id", "autoglm-usage", "x-ratelimit-remaining-tokens"):
        assert name in exposed.split(", ")


@pytest.mark.parametrize("good", [APP, ANY, "http://[::1]:3000", "chrome-extension://abcdef"])
def test_origins_are_given_as_browsers_send_them(good: str) -> None:
    assert GatewaySettings(allowed_origins=(good,)).allowed_origins == (good,)


@pytest.mark.parametrize("bad", ["app.example", f"{APP}/", f"{APP}/x", "HTTPS://a.example", "null"])
def test_anything_else_is_rejected_with_the_way_out(bad: str) -> None:
    with pytest.raises(ValidationError, match="SCHEME://HOST"):
        GatewaySettings(allowed_origins=(bad,))
