"""Envoy's configuration: where requests are sent, what bounds them, and Envoy's own responses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common import errors, rpc, status
from autoglm.gateway.envoy import config as envoy_config
from autoglm.gateway.envoy.config import GROUPS, Sockets, bootstrap
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.settings import GatewaySettings
from autoglm.validation import http_errors
from autoglm.validation.http_apis import INFERENCE_POSTS

SOCKETS = Sockets(Path("/run/x"))
MATCHER = "filter_chain_matcher"
LISTEN: Any = {"grpc": ("127.0.0.1", 1), "http": ("::1", 2)}


def text(**settings: Any) -> str:
    return bootstrap(GatewaySettings(**settings).with_memory(2**30), SOCKETS, LISTEN)


def config(**settings: Any) -> dict[str, Any]:
    return parsed(text(**settings))


@cache
def parsed(filled: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(filled, yaml.CSafeLoader)
    return found


def manager(wire: str, **settings: Any) -> dict[str, Any]:
    (listener,) = (
        x for x in config(**settings)["static_resources"]["listeners"] if x["name"] == wire
    )
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def routes(wire: str, **settings: Any) -> list[dict[str, Any]]:
    (host,) = manager(wire, **settings)["route_config"]["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


def route_of(wire: str, path: str, **headers: str) -> dict[str, Any]:
    """The first route that takes the request, as Envoy does."""
    headers = {":method": "POST", ":authority": "h", **headers}
    return next(r for r in routes(wire) if _takes(r["match"], path, headers))


def _takes(match: dict[str, Any], path: str, headers: dict[str, str]) -> bool:
    for wanted in match.get("headers", ()):
        value = headers.get(wanted["name"])
        if value is not None and "range_match" in wanted:
            bounds = wanted["range_match"]
            if not bounds["start"] <= int(value) < bounds["end"]:
                return False
        match_of = wanted.get("string_match", {})
        if value is None or value != match_of.get("exact", value):
            return False
        if match_of.get("contains", "") not in value:
            return False
    if "connect_matcher" in match:
        return headers[":method"] == "CONNECT"
    if "path" in match:
        return bool(match["path"] == path)
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return path.startswith(match["prefix"])


def _checks(route: dict[str, Any]) -> dict[str, Any]:
    """What a route changes of the filter that consults the picker."""
    filters = route.get("typed_per_filter_config", {})
    found: dict[str, Any] = filters.get("envoy.filters.http.ext_authz", {})
    return found


def goes_to(wire: str, path: str, **headers: str) -> str:
    found = route_of(wire, path, **headers)
    asks_picker = not _checks(found).get("disabled", False)
    cluster = str(found["route"]["cluster"])
    assert asks_picker == cluster.startswith("call-"), "pods are the picker's to name"
    return cluster


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.path)
def test_methods_of_one_request_go_to_pods(method: Any) -> None:
    assert goes_to("grpc", method.path) == ("own-grpc" if method.bidi else "call-grpc")


@pytest.mark.parametrize("path", [api.path for api in INFERENCE_POSTS])
def test_relayed_paths_go_to_pods(path: str) -> None:
    asked = path.replace("{model:.+}", "org/name-1.5")
    assert goes_to("http", asked) == "call-http"
    assert goes_to("http", asked, **{":method": "GET"}) == "own-http"


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("grpc", "/autoglm.v1.Inference/ListModels"),
        ("grpc", "/grpc.health.v1.Health/Check"),
        ("grpc", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
        ("http", "/v1/models"),
        ("http", "/v1/chat/completions/"),
        ("http", "/metrics"),
    ],
)
def test_all_else_is_served_by_the_gateway_itself(wire: str, path: str) -> None:
    assert goes_to(wire, path) == f"own-{wire}"


@pytest.mark.parametrize(
    ("wire", "header"),
    [("http", "content-encoding"), ("grpc", "grpc-encoding"), ("http", "x-autoglm-debug")],
)
def test_what_only_the_gateway_can_read_goes_there_first(wire: str, header: str) -> None:
    path = "/v1/completions" if wire == "http" else "/autoglm.v1.Inference/Chat"
    assert goes_to(wire, path, **{header: "gzip"}) == f"own-{wire}"


@pytest.mark.parametrize("method", [m for m in METHODS if not m.bidi], ids=lambda m: m.path)
def test_a_body_stays_with_envoy_only_behind_a_hint(method: Any) -> None:
    hinted = _checks(route_of("grpc", method.path, **{"autoglm-request-info-bin": "AA"}))
    is_hinted = method.name in envoy_config.HINTED_METHODS
    assert hinted.get("check_settings", {}) == (
        {"disable_request_body_buffering": True} if is_hinted else {}
    )
    assert _checks(route_of("grpc", method.path)) == {}


def test_the_picker_gets_the_start_of_a_body_over_the_limit() -> None:
    for wire in ("grpc", "http"):
        filters = manager(wire, max_body_bytes=2**20)["http_filters"]
        (picker,) = (f for f in filters if f["name"] == "envoy.filters.http.ext_authz")
        assert picker["typed_config"]["with_request_body"] == {
            "max_request_bytes": 2**20 + 1024,
            "allow_partial_message": True,
        }


def test_a_body_announced_as_too_long_is_rejected_without_waiting_for_it() -> None:
    limit = GatewaySettings().max_body_bytes
    for length, cluster in ((limit, "call-http"), (limit + 2000, "own-http")):
        assert goes_to("http", "/v1/completions", **{"content-length": str(length)}) == cluster


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_no_client_names_a_pod_or_a_call(wire: str) -> None:
    (early,) = manager(wire)["early_header_mutation_extensions"]
    mutations = early["typed_config"]["mutations"]
    assert {"remove": "x-gateway-destination-endpoint"} in mutations
    appended = {m["append"]["header"]["key"]: m["append"] for m in mutations if "append" in m}
    for name in ("x-autoglm-call", "x-autoglm-peer"):
        assert appended[name]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


@pytest.mark.parametrize(
    ("wire", "headers", "status"),
    [
        ("grpc", {":method": "CONNECT"}, 405),
        ("http", {":method": "CONNECT"}, 405),
        ("http", {":authority": "a,b"}, 400),
    ],
)
def test_what_is_no_request_reaches_neither_picker_nor_server(
    wire: str, headers: dict[str, str], status: int
) -> None:
    for path in ("/v1/completions", "/autoglm.v1.Inference/Chat", "/other"):
        found = route_of(wire, path, **headers)
        assert found["direct_response"] == {"status": status}
        assert "typed_per_filter_config" in found


def test_a_grpc_client_may_name_several_addresses_of_the_gateway() -> None:
    authority = "10.0.0.1:50051,10.0.0.2:50051"
    found = route_of("grpc", "/autoglm.v1.Inference/Chat", **{":authority": authority})
    assert found["route"]["cluster"] == "call-grpc"


def test_proxies_are_heard_only_where_the_settings_trust_some() -> None:
    trusted = {"trusted_proxies": ("10.0.0.0/8",)}
    for more, is_heard in (({}, False), (trusted, True)):
        for listener in config(**more)["static_resources"]["listeners"]:
            names = [each["name"] for each in listener.get("listener_filters", ())]
            assert names == ["envoy.filters.listener.proxy_protocol"] * is_heard
    assert manager("http")["skip_xff_append"] and manager("grpc")["skip_xff_append"]


def test_bodies_are_kept_up_to_the_limit_of_the_settings() -> None:
    found = routes("http", max_body_bytes=2**20)
    limits = {
        r.get("request_body_buffer_limit") for r in found if "retry_policy" in r.get("route", {})
    }
    assert limits == {2**20 + 1024}


def test_silence_ends_streams_only_and_not_while_they_may_wait_for_a_place() -> None:
    settings = {"queue_timeout_seconds": 5.0, "first_token_timeout_seconds": 70.0}
    idle = {
        r["match"]["path"].rpartition("/")[2]: r["route"]["idle_timeout"]
        for r in routes("grpc", **settings)
        if r.get("route", {}).get("idle_timeout", "0.000s") != "0.000s"
    }
    assert idle == {"GenerateStream": "75.000s", "ChatStream": "75.000s"}


def unique(found: Iterable[Any]) -> list[Any]:
    seen: list[Any] = []
    seen.extend(each for each in found if each not in seen)
    return seen


@cache
def small() -> list[dict[str, Any]]:
    listeners: list[dict[str, Any]] = config(max_connections=256)["static_resources"]["listeners"]
    return listeners


def group_of(address: str) -> str:
    """The chain of a connection, as Envoy finds it without proxies."""
    matcher = small()[0][MATCHER]
    for each in matcher["matcher_list"]["matchers"]:
        match = each["predicate"]["single_predicate"]["value_match"]["safe_regex"]["regex"]
        if re.fullmatch(match, address):
            return str(each["on_match"]["action"]["typed_config"]["value"])
    return str(matcher["on_no_match"]["action"]["typed_config"]["value"])


@given(st.ip_addresses(), st.integers(0, 2**64 - 1))
def test_every_address_is_in_a_limited_group_and_an_ipv6_network_in_one(
    address: IPv4Address | IPv6Address, host: int
) -> None:
    group = group_of(str(address))
    for listener in small():
        (chain,) = (each for each in listener["filter_chains"] if each["name"] == group)
        limit, manager = chain["filters"]
        assert limit["typed_config"]["max_connections"] == 32
        assert manager == listener["filter_chains"][0]["filters"][0]
    if isinstance(address, IPv6Address) and (int(address) >> 64) & 0xFFFF:
        other = IPv6Address(int(address) >> 64 << 64 | host)
        assert group_of(str(other)) == group


def test_groups_are_of_about_one_size() -> None:
    for addresses in (
        [f"192.0.2.{number}" for number in range(250)],
        [f"2001:db8:0:{number:x}::1" for number in range(1, 321)],
    ):
        sizes = Counter(map(group_of, addresses)).values()
        assert len(sizes) == GROUPS and max(sizes) <= 0.13 * len(addresses)


def test_only_trusted_proxies_and_what_they_name_are_not_limited() -> None:
    unlimited = {"value": "unlimited"}
    assert unlimited["value"] not in str(config()["static_resources"]["listeners"][0][MATCHER])
    trusting = config(trusted_proxies=("10.0.0.0/8", "::1"))["static_resources"]["listeners"]
    for listener in trusting:
        proxied, named, *_ = listener[MATCHER]["matcher_list"]["matchers"]
        peer, client = proxied["predicate"]["and_matcher"]["predicate"]
        assert "DirectSourceIPInput" in str(peer) and "v3.SourceIPInput" in str(client)
        assert named["predicate"]["or_matcher"]["predicate"] == [peer, peer]
        assert "v3.SourceIPInput" in str(named["on_match"]["matcher"])
        ranges = peer["single_predicate"]["custom_match"]["typed_config"]["cidr_ranges"]
        assert ranges == [
            {"address_prefix": "10.0.0.0", "prefix_len": 8},
            {"address_prefix": "::1", "prefix_len": 128},
        ]


def test_certificates_are_served_and_requested_as_the_settings_say() -> None:
    files = {"tls_cert_file": "/c/tls.crt", "tls_key_file": "/c/tls.key"}
    chains = config(**files)["static_resources"]["listeners"][0]["filter_chains"]
    (context,) = unique(chain["transport_socket"]["typed_config"] for chain in chains)
    (certificate,) = context["common_tls_context"]["tls_certificates"]
    assert certificate["watched_directory"] == {"path": "/c"}
    assert context["require_client_certificate"] is False
    mutual = config(**files, tls_client_ca_file="/c/ca.crt")
    chains = mutual["static_resources"]["listeners"][1]["filter_chains"]
    (socket,) = unique(chain["transport_socket"] for chain in chains)
    assert socket["typed_config"]["require_client_certificate"] is True
    assert (
        "transport_socket" not in config()["static_resources"]["listeners"][0]["filter_chains"][0]
    )


def test_only_bodies_of_http_have_to_be_whole_in_time() -> None:
    timeouts = {w: manager(w, default_timeout_seconds=5.0)["request_timeout"] for w in LISTEN}
    assert timeouts == {"grpc": "0s", "http": "5.000s"}


def test_connection_of_many_streams_is_not_ended_for_a_client_that_reads_late() -> None:
    """Its own limit is 10,000 frames, of all streams: 40 tokens behind on 256 streams."""
    for wire in ("grpc", "http"):
        options = manager(wire)["http2_protocol_options"]
        most = GatewaySettings().max_inflight
        assert options["max_outbound_frames"] >= 40 * most


def test_filled_template_has_no_open_place() -> None:
    filled = text()
    assert "# insert" not in filled
    assert not re.search(r"\$\w", filled)


def test_values_are_quoted_for_yaml() -> None:
    odd = "/run/a b: #'\"{}$x%"
    filled = bootstrap(GatewaySettings().with_memory(2**30), Sockets(Path(odd)), LISTEN)
    assert parsed(filled)["admin"]["address"]["pipe"]["path"] == f"{odd}/admin"


def test_operators_find_the_comments_in_the_filled_file() -> None:
    template = files("autoglm.gateway.envoy").joinpath("envoy.yaml").read_text("utf-8")
    bootstrap_part = template.partition("\n---")[0]
    comments = {x for x in bootstrap_part.splitlines() if x.lstrip().startswith("#")}
    missing = comments - set(text().splitlines())
    assert all("# insert " in line for line in missing), missing


@pytest.mark.parametrize(
    "name",
    [
        rpc.CALL_HEADER,
        rpc.PEER_HEADER,
        status.REQUEST_ID,
        http_errors.SHOULD_RETRY,
        *http_errors.STREAM_HEADERS,
        envoy_config.DESTINATION_HEADER,
        envoy_config.PLANE_HEADER,
        envoy_config.PLANE_WITHOUT,
    ],
)
def test_names_in_the_template_are_those_of_the_code(name: str) -> None:
    template = files("autoglm.gateway.envoy").joinpath("envoy.yaml").read_text("utf-8")
    assert re.search(rf"[ \"]{re.escape(name)}[],}}\"\n]", template)


def test_responses_forbid_a_retry_of_what_is_not_implemented() -> None:
    values = re.findall(r"response\.code == (\d+) \? 'false'", text())
    assert set(map(int, values)) == {errors.Unimplemented.http_status}


@pytest.mark.parametrize("origins", [("https://a.example",), ("*",)])
def test_only_listed_origins_are_allowed(origins: tuple[str, ...]) -> None:
    http = manager("http", allowed_origins=origins)
    names = [found["name"] for found in http["http_filters"]]
    assert names[:2] == ["envoy.filters.http.header_mutation", "envoy.filters.http.cors"]
    (host,) = http["route_config"]["virtual_hosts"]
    policy = host["typed_per_filter_config"]["envoy.filters.http.cors"]
    any_origin = [{"safe_regex": {"regex": ".+"}}]
    listed = [{"exact": "https://a.example"}]
    assert policy["allow_origin_string_match"] == (any_origin if origins == ("*",) else listed)
    assert "cors" not in str(manager("grpc", allowed_origins=origins)["http_filters"])
    assert "typed_per_filter_config" not in manager("http")["route_config"]["virtual_hosts"][0]


_ID = "%REQ(x-request-id)%"


def _mapper(flag: str, path: str) -> Any:
    """The one that Envoy uses: the first whose filters all match."""
    for mapper in manager("http")["local_reply_config"]["mappers"]:
        if "and_filter" not in mapper["filter"]:
            # A rejection by the picker, whose format stays.
            continue
        which, has_path = mapper["filter"]["and_filter"]["filters"]
        form = has_path["header_filter"]["header"]["string_match"]["safe_regex"]["regex"]
        flags = which.get("response_flag_filter", {}).get("flags", ())
        if flag in flags and re.fullmatch(form, path):
            return mapper
    raise AssertionError(f"no mapper for {flag} on {path}")


def _body(flag: str, path: str) -> Any:
    return _mapper(flag, path)["body_format_override"]["json_format"]


@pytest.mark.parametrize("flag", ["UT", "SI", "DPE", "UC", "OM", "UF"])
def test_a_response_of_envoys_own_is_in_the_paths_dialect(flag: str) -> None:
    openai = _body(flag, "/v1/chat/completions?a=b")["error"]
    assert openai["request_id"] == _ID and openai["code"] and openai["message"]
    anthropic = _body(flag, "/v1/messages")
    assert anthropic["type"] == "error" and anthropic["request_id"] == _ID
    assert set(anthropic["error"]) == {"type", "message"}
    assert isinstance(_body(flag, "/v2/models/a/b/infer?x")["error"], str)


def test_every_inference_path_and_every_other_one_has_a_mapper() -> None:
    for path in (*(api.path.replace("{model:.+}", "a/b") for api in INFERENCE_POSTS), "/", "/x\ny"):
        assert _mapper("UT", path)["status_code"] == 504


def test_every_response_has_the_request_id_in_the_dialects_headers() -> None:
    def names(path: str) -> set[str]:
        return {x["header"]["key"] for x in _mapper("UF", path)["headers_to_add"]}

    assert {"x-request-id", "retry-after"} <= names("/v1/completions")
    assert {"x-request-id", "request-id", "retry-after"} <= names("/v1/messages")


def test_no_flag_is_judged_twice() -> None:
    default = [
        flag
        for mapper in manager("http")["local_reply_config"]["mappers"]
        if "and_filter" in mapper["filter"]
        for which, has_path in [mapper["filter"]["and_filter"]["filters"]]
        if "(?:.*)" in has_path["header_filter"]["header"]["string_match"]["safe_regex"]["regex"]
        for flag in which.get("response_flag_filter", {}).get("flags", ())
    ]
    assert len(default) == len(set(default)) > 0
