"""What the gateway takes as proof of who asks. Frozen data, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from autoglm.common.addresses import split_address

_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What must be true of a JSON Web Token (RFC 7519), and where it says who asks.

    A claim is looked up by its whole name first, then as a path: `realm_access.roles`.
    """

    issuer: str
    audience: tuple[str, ...]
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    models_claim: str = "models"
    leeway_seconds: float = 30.0
    """How far the issuer's clock and ours may differ."""


@dataclass(frozen=True, slots=True)
class IdentitySources:
    """Where keys come from. `jwks` is a path or a URL; `secret_file` holds HS256's secret.

    `asked_anonymous` is None where nobody said; `is_local` that only this machine can connect.
    """

    asked_anonymous: bool | None = None
    is_local: bool = True
    api_keys_file: str = ""
    tokens: TokenRules | None = None
    jwks: str = ""
    secret_file: str = ""

    @property
    def is_configured(self) -> bool:
        return bool(self.api_keys_file) or self.tokens is not None

    @property
    def allow_anonymous(self) -> bool:
        if self.asked_anonymous is not None:
            return self.asked_anonymous
        return self.is_local and not self.is_configured

    @property
    def problem(self) -> str:
        """What is wrong; empty where nothing is."""
        if self.tokens is not None:
            if bool(self.jwks) == bool(self.secret_file):
                return "tokens need --jwt-jwks or --jwt-secret-file; give one of them"
            if not (self.tokens.issuer and self.tokens.audience and all(self.tokens.audience)):
                # Else every token of the issuer, for whatever service, would open this one.
                return "tokens need --jwt-issuer and --jwt-audience; give both"
        if not self.is_configured and not self.allow_anonymous:
            return (
                "nobody could ask anything: give --api-keys-file or --jwt-jwks, or serve everyone "
                "who reaches the ports with --allow-anonymous"
            )
        return ""


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to HOST:PORT."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_url(jwks: str) -> bool:
    return "://" in jwks


def name_of(what: str, value: object) -> str:
    """A tenant's or subject's name: printable, so that it may stand in logs. Raises ValueError."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"{what} must be a printable text of 1 to {_LONGEST_NAME} characters")
    return value
