"""The decision who asks: a credential, what is known now, and two clocks in; a verdict out. Pure.

A credential that was accepted from an address keeps being accepted from there without another
look, until it expires or the keys change: so a caller goes on while strangers behind the same
address are throttled. One that was refused is refused again without cost, and without counting as
another guess. Nothing of the request but the credential is ever believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from autoglm.common import errors
from autoglm.gateway.identity import tokens
from autoglm.gateway.identity.jwks import KeySet
from autoglm.gateway.identity.keys import PREFIX, ApiKeys
from autoglm.gateway.identity.rules import TokenRules
from autoglm.gateway.identity.throttle import Throttle
from autoglm.gateway.principal import ANONYMOUS, Principal
from autoglm.gateway.recent import Recent

ACCEPTED_LIMIT = 20_000
REFUSED_LIMIT = 2_000
_FOREVER = float("inf")
_HOW = "send `Authorization: Bearer KEY` (gRPC metadata `authorization`), or `x-api-key: KEY`"
Method = Literal["none", "api_key", "jwt"]


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
    """A token by a key that is not known; a fresh look at the issuer's keys may help."""
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
    """Either a principal, or why there is none."""

    method: Method
    outcome: Outcome
    principal: Principal | None = None
    why: str = ""
    retry_after: float | None = None

    def error(self) -> errors.AutoGLMError:
        cls = _ERRORS.get(self.outcome, errors.Unauthenticated)
        return cls(self.why, retry_after=self.retry_after)


@dataclass(frozen=True, slots=True)
class Known:
    """What credentials are judged by. `keys` is None without API keys, `rules` without tokens."""

    allow_anonymous: bool
    keys: ApiKeys | None = None
    rules: TokenRules | None = None
    key_set: KeySet = KeySet()


@dataclass(frozen=True, slots=True)
class _Accepted:
    method: Method
    principal: Principal
    until: float


class Authenticator:
    """Remembers what it has judged; `know` makes it judge anew."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.throttle = Throttle()
        self._accepted: Recent[tuple[str, bytes], _Accepted] = Recent(ACCEPTED_LIMIT)
        self._refused: Recent[bytes, Verdict] = Recent(REFUSED_LIMIT)

    @property
    def known(self) -> Known:
        return self._known

    def know(self, known: Known) -> None:
        """From now on this holds; what was judged before is forgotten."""
        self._known = known
        self._accepted.clear()
        self._refused.clear()

    def judge(self, authorization: str, peer: str, now: float, wall: float) -> Verdict:
        """`authorization` is the header's value; `now` is monotonic, `wall` since 1970.

        UNKNOWN_KEY is not counted as a guess yet; `give_up` does that.
        """
        if not authorization:
            return self._without_credential()
        credential = _bearer(authorization)
        digest = hashlib.sha256((credential or authorization).encode(errors="replace")).digest()
        seen = self._accepted.get((peer, digest))
        if seen is not None and wall < seen.until:
            return Verdict(seen.method, Outcome.ACCEPTED, seen.principal)
        if refused := self._refused.get(digest):
            return refused
        wait = self.throttle.wait(peer, now)
        if wait > 0:
            return _throttled(_method(credential), wait)
        return self._look(credential, digest, peer, now, wall)

    def give_up(self, authorization: str, peer: str, now: float, verdict: Verdict) -> Verdict:
        """The final verdict on a token whose key stayed unknown."""
        digest = hashlib.sha256(_bearer(authorization).encode(errors="replace")).digest()
        final = Verdict(verdict.method, Outcome.INVALID, why=verdict.why)
        return self._refuse(final, digest, peer, now)

    def _without_credential(self) -> Verdict:
        if self._known.allow_anonymous:
            return Verdict("none", Outcome.ANONYMOUS, ANONYMOUS)
        return Verdict("none", Outcome.MISSING, why=f"the request has no credential; {_HOW}")

    def _look(self, credential: str, digest: bytes, peer: str, now: float, wall: float) -> Verdict:
        method = _method(credential)
        if method == "api_key":
            verdict, until = self._of_key(credential, wall)
        elif method == "jwt" and self._known.rules is not None:
            verdict, until = self._of_token(credential, self._known.rules, wall)
        else:
            verdict, until = _invalid("none", f"the credential is not one that is known; {_HOW}")
        if verdict.principal is not None:
            accepted = _Accepted(verdict.method, verdict.principal, until)
            self._accepted.put((peer, digest), accepted)
        elif verdict.outcome is Outcome.INVALID:
            return self._refuse(verdict, digest, peer, now)
        return verdict

    def _refuse(self, verdict: Verdict, digest: bytes, peer: str, now: float) -> Verdict:
        self._refused.put(digest, verdict)
        self.throttle.charge(peer, now)
        return verdict

    def _of_key(self, credential: str, wall: float) -> tuple[Verdict, float]:
        found = (self._known.keys or ApiKeys()).find(credential)
        if found is None:
            return _invalid("api_key", "the API key is not known; check it, or ask for a new one")
        until = _FOREVER if found.expires is None else found.expires
        if wall >= until:
            name = found.principal.subject
            return _not("api_key", Outcome.EXPIRED, f"the API key {name!r} has expired")
        return Verdict("api_key", Outcome.ACCEPTED, found.principal), until

    def _of_token(self, credential: str, rules: TokenRules, wall: float) -> tuple[Verdict, float]:
        known = self._known
        if not known.key_set.has_keys:
            why = "the keys of the token's issuer could not be read yet; try again"
            return Verdict("jwt", Outcome.UNAVAILABLE, why=why, retry_after=5.0), 0.0
        try:
            principal, until = tokens.principal_of(credential, known.key_set, rules, wall)
        except tokens.TokenExpired as error:
            return _not("jwt", Outcome.EXPIRED, str(error))
        except tokens.TokenForbidden as error:
            return _not("jwt", Outcome.FORBIDDEN, str(error))
        except tokens.UnknownKey as error:
            return _not("jwt", Outcome.UNKNOWN_KEY, str(error))
        except tokens.TokenRefused as error:
            return _invalid("jwt", str(error))
        return Verdict("jwt", Outcome.ACCEPTED, principal), until


def _bearer(authorization: str) -> str:
    """The token of RFC 6750; empty for another scheme, or for more than one."""
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip(" ")
    is_bearer = scheme.lower() == "bearer" and " " not in credential and "," not in credential
    return credential if is_bearer else ""


def _method(credential: str) -> Method:
    if credential.startswith(PREFIX):
        return "api_key"
    return "jwt" if tokens.looks_like_token(credential) else "none"


def _invalid(method: Method, message: str) -> tuple[Verdict, float]:
    return _not(method, Outcome.INVALID, message)


def _not(method: Method, outcome: Outcome, message: str) -> tuple[Verdict, float]:
    return Verdict(method, outcome, why=message), 0.0


def _throttled(method: Method, wait: float) -> Verdict:
    message = "too many wrong credentials came from this address; try again later"
    return Verdict(method, Outcome.THROTTLED, why=message, retry_after=wait)
