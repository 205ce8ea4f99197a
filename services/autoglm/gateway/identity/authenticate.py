"""Authenticates a caller: from credentials, the current keys and two clocks to a verdict. No I/O.

Every credential that a request presents must be valid, and all of them must be of one principal.
A credential accepted from an address stays accepted from there without another verification until
it expires or the keys change, so that a caller is served while others behind the same address are
throttled. A rejected credential is rejected again from memory and does not count as another guess.
A remembered verdict never applies to another credential, nor to another form of the same one. Only
the credentials of a request are used, never its other headers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

import msgspec

from autoglm.common import errors
from autoglm.common.addresses import NO_PROXIES, TrustedProxies
from autoglm.common.lru import LruCache
from autoglm.common.rpc import API_KEY, AUTHORIZATION, Credentials
from autoglm.gateway.identity import tokens
from autoglm.gateway.identity.jwks import FETCH_PAUSE_SECONDS, KeySet
from autoglm.gateway.identity.keys import PREFIX, ApiKeys
from autoglm.gateway.identity.rules import TokenRules
from autoglm.gateway.identity.throttle import Throttle
from autoglm.gateway.request.principal import ANONYMOUS, Principal

ACCEPTED_LIMIT = 20_000
REJECTED_LIMIT = 2_000
_FOREVER = float("inf")
_HOW = "send `Authorization: Bearer KEY` (gRPC metadata `authorization`), or `x-api-key: KEY`"
# token68 of RFC 9110, the form of API keys and of JSON Web Tokens.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(rf"(?i:bearer) +({_TOKEN.pattern})")
# Optional whitespace around a header's value is not part of it (RFC 9110).
_WHITESPACE = " \t"
Method = Literal["none", "api_key", "jwt"]


class Credential(msgspec.Struct, frozen=True):
    """A credential. `token` is empty if it is malformed; then `problem` gives the reason only.

    A well-formed credential is identified by its token alone, so that it is the same in either
    header. A malformed one is identified by its header and its whole value, scheme included: a
    verdict on it never applies to the token within it.
    """

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
        if not text:
            problem = "it is empty; send a credential or leave the header out"
        elif header == API_KEY:
            problem = "it is not one API key; send `x-api-key: KEY`, without a scheme"
        else:
            problem = "it is not one bearer token; send `Authorization: Bearer KEY`, once"
        return Credential(header, "", _digest(header, value), problem)
    token = found[found.lastindex or 0]
    return Credential(header, token, _digest("", token))


def _digest(header: str, text: str) -> bytes:
    """Hash both. Without a header the text is a token; a header's name is never empty and has no
    NUL, so a token and a malformed value never have the same digest."""
    return hashlib.sha256(f"{header}\0{text}".encode(errors="surrogatepass")).digest()


class Outcome(StrEnum):
    """How an attempt to authenticate ended."""

    ACCEPTED = "accepted"
    ANONYMOUS = "anonymous"
    MISSING = "missing"
    INVALID = "invalid"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    UNKNOWN_KEY = "unknown_key"
    """A token signed with an unknown key; refreshing the issuer's keys may help."""
    UNAVAILABLE = "unavailable"


class KeysUnavailable(errors.AutoGLMError):
    """The issuer's keys have never been read, so no token can be verified."""

    reason = "KEYS_UNAVAILABLE"
    grpc_status = "UNAVAILABLE"
    http_status = 503
    retryable = True


_ERRORS: Mapping[Outcome, type[errors.AutoGLMError]] = {
    Outcome.FORBIDDEN: errors.PermissionDenied,
    Outcome.THROTTLED: errors.RateLimited,
    Outcome.UNAVAILABLE: KeysUnavailable,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an authentication: a principal, or the reason for the rejection."""

    method: Method
    outcome: Outcome
    principal: Principal | None = None
    why: str = ""
    retry_after: float | None = None
    header: str = ""
    """The header whose credential was rejected; empty if none was."""
    digest: bytes = field(default=b"", repr=False, compare=False)
    """The digest of the rejected credential, for `give_up`."""

    def error(self) -> errors.AutoGLMError:
        """Return the error for the client."""
        cls = _ERRORS.get(self.outcome, errors.Unauthenticated)
        where = f"header {self.header}: " if self.header else ""
        return cls(where + self.why, field=self.header, retry_after=self.retry_after)


@dataclass(frozen=True, slots=True)
class Known:
    """The keys and rules in force. `keys` is None without API keys, `rules` without tokens."""

    allow_anonymous: bool
    keys: ApiKeys | None = None
    rules: TokenRules | None = None
    key_set: KeySet = KeySet()


@dataclass(frozen=True, slots=True)
class _Accepted:
    verdict: Verdict
    until: float
    """In seconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Rejected:
    verdict: Verdict
    until: float
    """In seconds of the monotonic clock."""


class Authenticator:
    """Authenticates and remembers its verdicts; `know` discards them."""

    def __init__(self, known: Known, proxies: TrustedProxies = NO_PROXIES) -> None:
        self._known = known
        self.throttle = Throttle(proxies=proxies)
        self._accepted: LruCache[tuple[str, bytes], _Accepted] = LruCache(ACCEPTED_LIMIT)
        self._rejected: LruCache[bytes, _Rejected] = LruCache(REJECTED_LIMIT)

    @property
    def known(self) -> Known:
        return self._known

    def know(self, known: Known) -> None:
        """Use these keys and rules from now on; discards earlier verdicts."""
        self._known = known
        self._accepted.clear()
        self._rejected.clear()

    def judge(self, presented: Credentials, peer: str, now: float, wall: float) -> Verdict:
        """Return the verdict on the presented credentials; the first invalid one decides.

        `now` is monotonic, `wall` in seconds since 1970. UNKNOWN_KEY does not count as a guess
        until `give_up` is called.
        """
        if not presented:
            if self._known.allow_anonymous:
                return Verdict("none", Outcome.ANONYMOUS, ANONYMOUS)
            return Verdict("none", Outcome.MISSING, why=f"the request has no credential; {_HOW}")
        first: Verdict | None = None
        for credential in credentials_in(presented):
            verdict = self._judge_one(credential, peer, now, wall)
            if verdict.principal is None:
                return replace(verdict, header=credential.header)
            if first is not None and verdict.principal != first.principal:
                # Both credentials are valid, so it is no guess, and nothing is remembered.
                why = (
                    "it belongs to another principal than the credential before it; "
                    "send one of them"
                )
                return Verdict(verdict.method, Outcome.INVALID, why=why, header=credential.header)
            first = first or verdict
        assert first is not None
        return first

    def give_up(self, peer: str, now: float, verdict: Verdict) -> Verdict:
        """Return the final verdict on a token whose key stayed unknown.

        It is remembered until the issuer's keys may be fetched again, which may bring the key.
        """
        final = replace(verdict, outcome=Outcome.INVALID)
        return self._reject(final, peer, now, now + FETCH_PAUSE_SECONDS)

    def _judge_one(self, credential: Credential, peer: str, now: float, wall: float) -> Verdict:
        seen = self._accepted.get((peer, credential.digest))
        if seen is not None and wall < seen.until:
            return seen.verdict
        rejected = self._rejected.get(credential.digest)
        if rejected is not None and now < rejected.until:
            return rejected.verdict
        wait = self.throttle.wait(peer, now)
        if wait > 0:
            why = "too many invalid credentials came from this address; try again later"
            method = _method(credential.token)
            return Verdict(method, Outcome.THROTTLED, why=why, retry_after=wait)
        verdict, until = self._verify(credential, wall)
        verdict = replace(verdict, digest=credential.digest)
        if verdict.principal is not None:
            self._accepted.put((peer, credential.digest), _Accepted(verdict, until))
        elif verdict.outcome is Outcome.INVALID:
            return self._reject(verdict, peer, now, _FOREVER)
        return verdict

    def _verify(self, credential: Credential, wall: float) -> tuple[Verdict, float]:
        if credential.problem:
            return _invalid("none", credential.problem)
        method = _method(credential.token)
        if method == "api_key":
            found = (self._known.keys or ApiKeys()).find(credential.token)
            if found is None:
                return _invalid("api_key", "the API key is unknown; check it, or request a new one")
            until = _FOREVER if found.expires is None else found.expires
            if wall >= until:
                name = found.principal.subject
                return _rejection("api_key", Outcome.EXPIRED, f"the API key {name!r} has expired")
            return Verdict("api_key", Outcome.ACCEPTED, found.principal), until
        if method == "jwt" and self._known.rules is not None:
            return self._verify_token(credential.token, self._known.rules, wall)
        return _invalid("none", f"the credential is neither an API key nor a token; {_HOW}")

    def _reject(self, verdict: Verdict, peer: str, now: float, until: float) -> Verdict:
        self._rejected.put(verdict.digest, _Rejected(verdict, until))
        self.throttle.charge(peer, now)
        return verdict

    def _verify_token(self, token: str, rules: TokenRules, wall: float) -> tuple[Verdict, float]:
        known = self._known
        if not known.key_set.has_keys:
            why = "the keys of the token's issuer could not be read yet; try again"
            return Verdict("jwt", Outcome.UNAVAILABLE, why=why, retry_after=5.0), 0.0
        try:
            principal, until = tokens.principal_of(token, known.key_set, rules, wall)
        except tokens.TokenExpired as error:
            return _rejection("jwt", Outcome.EXPIRED, str(error))
        except tokens.TokenForbidden as error:
            return _rejection("jwt", Outcome.FORBIDDEN, str(error))
        except tokens.UnknownKey as error:
            return _rejection("jwt", Outcome.UNKNOWN_KEY, str(error))
        except tokens.TokenRejected as error:
            return _invalid("jwt", str(error))
        return Verdict("jwt", Outcome.ACCEPTED, principal), until


def _method(credential: str) -> Method:
    if credential.startswith(PREFIX):
        return "api_key"
    return "jwt" if tokens.looks_like_token(credential) else "none"


def _invalid(method: Method, message: str) -> tuple[Verdict, float]:
    return _rejection(method, Outcome.INVALID, message)


def _rejection(method: Method, outcome: Outcome, message: str) -> tuple[Verdict, float]:
    return Verdict(method, outcome, why=message), 0.0
