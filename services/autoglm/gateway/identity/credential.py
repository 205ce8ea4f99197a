"""Parses credentials from header values: well formed, or malformed with the reason. Pure.

A well-formed credential is identified by its token alone, so that it is the same in either header.
A malformed one is identified by its header and its whole value, scheme included: a verdict on it
never applies to the token within it.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from autoglm.common.rpc import API_KEY, AUTHORIZATION, Credentials

# token68 of RFC 9110, the form of API keys and of JSON Web Tokens.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(rf"(?i:bearer) +({_TOKEN.pattern})")
# Optional whitespace around a header's value is not part of it (RFC 9110).
_WHITESPACE = " \t"


class Credential(msgspec.Struct, frozen=True):
    """One credential. `token` is empty if malformed; then `problem` gives the reason only."""

    header: str
    token: str
    digest: bytes
    problem: str = ""

    def __repr__(self) -> str:
        """Return a text without the token."""
        return f"Credential({self.header!r}, problem={self.problem!r})"


def credentials_in(presented: Credentials) -> tuple[Credential, ...]:
    """Return the credentials of all header values, in order.

    Several `authorization` values are one malformed value, because proxies join them with a comma
    and the header has one value (RFC 9110): the verdict is the same behind a proxy as without.
    """
    if len(presented) == 1:
        return (credential_of(*presented[0]),)
    given = [value for header, value in presented if header == AUTHORIZATION]
    if len(given) > 1:
        others = tuple(pair for pair in presented if pair[0] != AUTHORIZATION)
        presented = ((AUTHORIZATION, ",".join(given)), *others)
    return tuple(credential_of(header, value) for header, value in presented)


def credential_of(header: str, value: str) -> Credential:
    """Parse a value of `authorization` or `x-api-key`."""
    text = value.strip(_WHITESPACE)
    found = _TOKEN.fullmatch(text) if header == API_KEY else _BEARER.fullmatch(text)
    if found is None:
        return Credential(header, "", _digest(header, value), _problem(header, text))
    token = found[found.lastindex or 0]
    return Credential(header, token, _digest("", token))


def _digest(header: str, text: str) -> bytes:
    """No header's name is empty or contains a NUL, so the two kinds of digest never collide."""
    return hashlib.sha256(f"{header}\0{text}".encode(errors="surrogatepass")).digest()


def _problem(header: str, text: str) -> str:
    if not text:
        return "it is empty; send a credential or leave the header out"
    if header == API_KEY:
        return "it is not one API key; send `x-api-key: KEY`, without a scheme"
    return "it is not one bearer token; send `Authorization: Bearer KEY`, once"
