"""Settings of identity: the default of authentication, and conflicting options."""

from typing import Any

import pytest

from autoglm.common.settings import SettingsError
from autoglm.gateway.settings import GatewaySettings

LOCAL = {"grpc_address": "127.0.0.1:1", "http_address": "[::1]:2"}
OPEN = LOCAL | {"http_address": "0.0.0.0:2"}
KEYS = {"api_keys_file": "keys.json"}
TOKENS = {"jwt_jwks": "https://i/k", "jwt_issuer": "https://i", "jwt_audience": "a,b"}


@pytest.mark.parametrize(
    ("flags", "anonymous"),
    [
        (LOCAL, True),
        (LOCAL | {"grpc_address": "localhost:1"}, True),
        (LOCAL | KEYS, False),
        (LOCAL | TOKENS, False),
        (OPEN | KEYS, False),
        (OPEN | {"allow_anonymous": True}, True),
        (OPEN | KEYS | {"allow_anonymous": True}, True),
        (LOCAL | KEYS | {"allow_anonymous": False}, False),
        (LOCAL | {"endpoint_picker_address": "127.0.0.1:9002"}, True),
    ],
)
def test_anonymous_access_is_for_loopback_or_on_request(
    flags: dict[str, Any], anonymous: bool
) -> None:
    assert GatewaySettings.load(flags).identity.allow_anonymous is anonymous


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (OPEN, "--allow-anonymous"),
        (LOCAL | {"grpc_address": "10.0.0.1:1"}, "--allow-anonymous"),
        (LOCAL | {"grpc_address": "gateway:1"}, "--allow-anonymous"),
        (LOCAL | {"endpoint_picker_address": "0.0.0.0:9002"}, "--allow-anonymous"),
        (LOCAL | {"endpoint_picker_address": "9002"}, "--endpoint-picker-address"),
        (LOCAL | {"endpoint_picker_cert_file": "c"}, "endpoint_picker_key_file"),
        (LOCAL | {"allow_anonymous": False}, "no client could authenticate"),
        (TOKENS | {"jwt_secret_file": "s"}, "give one of them"),
        ({"jwt_issuer": "https://i", "jwt_audience": "a"}, "give one of them"),
        ({"jwt_jwks": "keys.json", "jwt_audience": "a"}, "--jwt-issuer and --jwt-audience"),
        ({"jwt_secret_file": "s", "jwt_issuer": "i"}, "--jwt-issuer and --jwt-audience"),
        (TOKENS | {"jwt_jwks": "http://issuer.example/k"}, "http is for loopback only"),
        (TOKENS | {"jwt_jwks": "file:///etc/keys"}, "give a file or an https URL"),
        (TOKENS | {"jwt_audience": ("a", "")}, "--jwt-issuer and --jwt-audience"),
        (TOKENS | {"jwt_tenant_claim": ""}, "--jwt-tenant-claim"),
    ],
)
def test_settings_by_which_no_caller_or_every_caller_gets_in_are_refused(
    flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        GatewaySettings.load(flags)


def test_http_may_be_used_where_no_other_host_can_listen() -> None:
    settings = GatewaySettings.load(TOKENS | {"jwt_jwks": "http://127.0.0.1:8/k"})
    assert settings.identity.jwks == "http://127.0.0.1:8/k"
    assert settings.identity.tokens and settings.identity.tokens.audience == ("a", "b")


def test_two_keys_for_the_same_servers_are_refused() -> None:
    with pytest.raises(SettingsError, match="give upstream_api_key_file alone"):
        GatewaySettings.load({"upstream_api_key": "k", "upstream_api_key_file": "f"})


@pytest.mark.parametrize(
    "flags",
    [
        {"upstream_api_key": ("hush",)},
        {"upstream_api_key": "hush", "upstream_api_key_file": "f"},
        {"endpoint": ("https://user:hush@api.example/v1",)},
        {"endpoint": ("https://:hush@api.example/v1",)},
        {"endpoint": ("ftp://user:hush@api.example/v1",)},
        {"jwt_jwks": "ftp://user:hush@issuer.example/jwks"},
        {"traces": "otlp:https://user:hush@collector", "trace_sample_ratio": "https://:hush@x"},
    ],
)
def test_problem_with_a_setting_quotes_no_secret(flags: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load(flags)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_are_in_no_repr() -> None:
    told = GatewaySettings.load({"upstream_api_key": "hush"})
    assert "hush" not in f"{told!r} {told}"


def test_every_setting_that_holds_a_secret_is_kept_from_reprs() -> None:
    """A new one by such a name must be a file, or not be shown."""
    words = ("secret", "password", "token", "api_key", "credential")
    named = {
        name: field
        for name, field in GatewaySettings.model_fields.items()
        if any(word in name for word in words) and field.annotation is str
    }
    shown = {name for name, field in named.items() if field.repr}
    assert all(name.endswith(("_file", "_claim")) for name in shown), shown


@pytest.mark.parametrize(
    ("flags", "longest"),
    [
        ({}, 64 * 2**20),
        ({"max_body_bytes": 1000}, 1000),
        ({"max_body_bytes": 1000, "max_message_bytes": 500}, 500),
        ({"max_body_bytes": 1000, "max_message_bytes": 2000}, 1000),
    ],
)
def test_a_message_is_no_longer_than_a_body_may_be(flags: dict[str, int], longest: int) -> None:
    assert GatewaySettings.load(LOCAL | flags).message_bytes == longest


@pytest.mark.parametrize(("attempts", "mode"), [(0, "Off"), (1, "Replay"), (20, "Replay")])
def test_zero_attempts_turn_recovery_off_and_any_number_is_allowed(
    attempts: int, mode: str
) -> None:
    recovery = GatewaySettings.load({"recovery_attempts": attempts}).stream_recovery
    assert (recovery.mode, recovery.max_attempts) == (mode, attempts)


@pytest.mark.parametrize(
    ("flags", "connections"),
    [
        ({}, 1250),
        ({"max_connections": 256}, 32),
        ({"max_connections": 64}, 16),
        ({"max_connections": 4}, 4),
        ({"max_connections_per_address": 5}, 5),
        ({"max_connections": 256, "max_connections_per_address": 9999}, 256),
    ],
)
def test_one_address_has_a_share_of_the_connections(
    flags: dict[str, int], connections: int
) -> None:
    assert GatewaySettings.load(LOCAL | flags).connections_per_address == connections


def test_proxies_are_networks_separated_by_commas_or_repeated() -> None:
    networks = ("10.0.0.0/8, ::1/128", "192.0.2.1")
    proxies = GatewaySettings.load(LOCAL | {"trusted_proxies": networks}).proxies
    addresses = ("10.1.1.1", "::1", "192.0.2.1", "192.0.2.2")
    assert [proxies.trusts(each) for each in addresses] == [True, True, True, False]
    for value in ("10.0.0.1/8", "proxy.example", ","):
        with pytest.raises(SettingsError, match="--trusted-proxies"):
            GatewaySettings.load(LOCAL | {"trusted_proxies": (value,)})
