"""Checks of single settings of the gateway. Pure; each raises ValueError and returns the value."""

from __future__ import annotations

from urllib.parse import urlsplit

from autoglm.common.addresses import TrustedProxies, split_address
from autoglm.gateway.edges.cors import check_origin
from autoglm.gateway.endpoints.static_discovery import parse_target
from autoglm.gateway.identity.rules import is_loopback, is_url


def address_or_empty(address: str) -> str:
    if address:
        split_address(address)
    return address


def networks_of_proxies(networks: tuple[str, ...]) -> tuple[str, ...]:
    networks = tuple(each.strip() for one in networks for each in one.split(","))
    TrustedProxies(networks)
    return networks


def endpoint_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        parse_target(url)
    return urls


def origins(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(check_origin(origin) for origin in given)


def jwks_file_or_url(jwks: str) -> str:
    parts = urlsplit(jwks)
    is_safe = parts.scheme == "https" or is_loopback(f"{parts.hostname}:{parts.port or 80}")
    if is_url(jwks) and not (parts.scheme in ("http", "https") and is_safe):
        raise ValueError("give a file or an https URL; http is for loopback only")
    return jwks
