"""The configuration of authentication. Frozen data, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from autoglm.common.addresses import NO_PROXIES, TrustedProxies, split_address

_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Required contents of JSON Web Tokens (RFC 7519), and the claims that name the caller.

    A claim is found by its whole name first, then as a path: `realm_access.roles`.
    """

    issuer: str
    audience: tuple[str, ...]
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    models_claim: str = "models"
    leeway_seconds: float = 30.0
    """How far the clocks of the issuer and of the gateway may differ."""


@dataclass(frozen=True, slots=True)
class IdentitySources:
    """Where keys come from. `jwks` is a path or a URL; `secret_file` holds HS256's secret."""

    anonymous: bool | None = None
    """--allow-anonymous; None if it is not set."""
    is_local: bool = True
    """Whether only this machine can connect."""
    api_keys_file: str = ""
    tokens: TokenRules | None = None
    jwks: str = ""
    secret_file: str = ""
    proxies: TrustedProxies = NO_PROXIES
    """Addresses that are never throttled."""

    @property
    def is_configured(self) -> bool:
        return bool(self.api_keys_file) or self.tokens is not None

    @property
    def allow_anonymous(self) -> bool:
        if self.anonymous is not None:
            return self.anonymous
        return self.is_local and not self.is_configured

    @property
    def problem(self) -> str:
        """Return what is wrong with the configuration; empty if it is valid."""
        if self.tokens is not None:
            if bool(self.jwks) == bool(self.secret_file):
                return "tokens need --jwt-jwks or --jwt-secret-file; give one of them"
            if not (self.tokens.issuer and self.tokens.audience and all(self.tokens.audience)):
                # Otherwise tokens that the issuer made for other services would be accepted.
                return "tokens need --jwt-issuer and --jwt-audience; give both"
        if not self.is_configured and not self.allow_anonymous:
            return (
                "no client could authenticate: give --api-keys-file or --jwt-jwks, or serve every "
                "client that reaches the ports with --allow-anonymous"
            )
        return ""


def is_loopback(address: str) -> bool:
    """Return whether only this machine can connect to HOST:PORT."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_url(jwks: str) -> bool:
    """Return whether --jwt-jwks is a URL rather than a path."""
    return "://" in jwks


def name_of(what: str, value: object) -> str:
    """Return a tenant's or subject's name, printable for logs. Raises ValueError."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"{what} must be a printable text of 1 to {_LONGEST_NAME} characters")
    return value
