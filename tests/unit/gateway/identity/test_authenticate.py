"""The decision who asks, over both kinds of credentials."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common import errors
from autoglm.gateway.identity import tokens
from autoglm.gateway.identity.authenticate import (
    REFUSED_LIMIT,
    Authenticator,
    KeysUnavailable,
    Known,
    Outcome,
)
from autoglm.gateway.identity.jwks import KeySet, key_set_of_jwks
from autoglm.gateway.identity.keys import keys_of, new_key
from autoglm.gateway.identity.throttle import FAILURES
from autoglm.gateway.principal import ANONYMOUS, Role

NOW = 1_800_000_000.0
END = datetime.fromtimestamp(NOW + 100, UTC)
KEY, ENTRY = new_key("acme", "ci", (Role.USER,), expires=END)
OTHER, OTHER_ENTRY = new_key("globex", "cd")
KEYS = keys_of(msgspec.json.encode({"keys": [ENTRY, OTHER_ENTRY]}))


def authenticator(issuer: Any = None, allow_anonymous: bool = False) -> Authenticator:
    known = Known(allow_anonymous, KEYS)
    if issuer is not None:
        known = replace(known, rules=issuer.rules, key_set=key_set_of_jwks(issuer.jwks()))
    return Authenticator(known)


def outcome(of: Authenticator, credential: str, peer: str = "p", at: float = 0.0) -> Outcome:
    return of.judge(f"Bearer {credential}", peer, at, NOW + at).outcome


def guess(of: Authenticator, count: float, peer: str = "p", at: float = 0.0) -> None:
    for number in range(int(count)):
        outcome(of, f"agk_{ENTRY.id}_{number}-{at}", peer, at)


def test_key_and_token_say_who_asks(issuer: Any) -> None:
    of = authenticator(issuer)
    key = of.judge(f"Bearer {KEY}", "p", 0, NOW)
    token = of.judge(f"bearer  {issuer.token()}", "p", 0, NOW)
    assert key.principal and token.principal
    assert (key.method, key.principal.tenant, key.principal.subject) == ("api_key", "acme", "ci")
    assert (token.method, token.principal.subject) == ("jwt", "alice")


def test_nobody_is_anonymous_only_where_that_is_allowed() -> None:
    assert authenticator(allow_anonymous=True).judge("", "p", 0, NOW).principal is ANONYMOUS
    refused = authenticator().judge("", "p", 0, NOW)
    assert refused.outcome is Outcome.MISSING
    assert isinstance(refused.error(), errors.Unauthenticated)
    assert "x-api-key" in refused.error().message


@pytest.mark.parametrize(
    "authorization",
    [
        KEY,
        f"Basic {KEY}",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}, Bearer {OTHER}",
        f"Bearer {KEY},{OTHER}",
        f"Bearer {KEY} {OTHER}",
        f"Bearer {KEY}x",
        "Bearer sk-somebody-elses",
        "Bearer a.b.c",
    ],
)
def test_wrong_credential_is_refused_even_where_anonymous_is_allowed(authorization: str) -> None:
    verdict = authenticator(allow_anonymous=True).judge(authorization, "p", 0, NOW)
    assert verdict.principal is None and verdict.outcome is Outcome.INVALID
    assert isinstance(verdict.error(), errors.Unauthenticated)
    assert KEY not in verdict.why and OTHER not in repr(verdict)


def test_key_ends_when_its_time_is_over_though_it_was_accepted_before() -> None:
    of = authenticator()
    assert outcome(of, KEY, at=99.9) is Outcome.ACCEPTED
    assert outcome(of, KEY, at=100.0) is Outcome.EXPIRED


def test_token_ends_when_its_time_is_over_though_it_was_accepted_before(issuer: Any) -> None:
    of = authenticator(issuer)
    assert outcome(of, issuer.token(), at=629) is Outcome.ACCEPTED
    assert outcome(of, issuer.token(), at=630) is Outcome.EXPIRED


def test_key_that_left_the_file_is_refused_at_once() -> None:
    of = authenticator()
    assert outcome(of, KEY) is Outcome.ACCEPTED
    of.know(replace(of.known, keys=keys_of(b'{"keys": []}')))
    assert outcome(of, KEY) is Outcome.INVALID


def test_key_that_came_into_the_file_is_accepted_though_it_was_refused_before() -> None:
    of = Authenticator(Known(False, keys_of(b'{"keys": []}')))
    assert outcome(of, KEY) is Outcome.INVALID
    of.know(replace(of.known, keys=KEYS))
    assert outcome(of, KEY) is Outcome.ACCEPTED


def test_token_of_a_key_that_left_the_set_is_refused_at_once(issuer: Any) -> None:
    of = authenticator(issuer)
    assert outcome(of, issuer.token()) is Outcome.ACCEPTED
    of.know(replace(of.known, key_set=key_set_of_jwks(issuer.jwks(issuer.jwk(kid="r2")))))
    assert outcome(of, issuer.token()) is Outcome.UNKNOWN_KEY


def test_token_is_verified_once(issuer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of, token = authenticator(issuer), issuer.token()
    outcome(of, token)
    monkeypatch.setattr(tokens, "principal_of", None)
    assert outcome(of, token) is Outcome.ACCEPTED


def test_tokens_wait_for_the_issuers_keys_and_api_keys_do_not(issuer: Any) -> None:
    of = authenticator(issuer)
    of.know(replace(of.known, key_set=KeySet()))
    error = of.judge(f"Bearer {issuer.token()}", "p", 0, NOW).error()
    assert isinstance(error, KeysUnavailable) and error.retryable and error.retry_after
    assert outcome(of, KEY) is Outcome.ACCEPTED


def test_guessing_is_slowed_and_even_a_right_guess_must_wait() -> None:
    of = authenticator()
    guess(of, FAILURES)
    verdict = of.judge(f"Bearer {KEY}", "p", 0, NOW)
    assert verdict.outcome is Outcome.THROTTLED
    error = verdict.error()
    assert isinstance(error, errors.RateLimited) and error.retry_after == 2.0
    assert outcome(of, KEY, at=2.0) is Outcome.ACCEPTED


def test_whoever_was_in_stays_in_while_strangers_of_their_address_are_slowed() -> None:
    of = authenticator()
    assert outcome(of, OTHER) is Outcome.ACCEPTED
    guess(of, FAILURES)
    assert outcome(of, OTHER) is Outcome.ACCEPTED
    assert outcome(of, KEY) is Outcome.THROTTLED
    assert outcome(of, KEY, peer="q") is Outcome.ACCEPTED


def test_being_in_from_elsewhere_is_no_help_to_who_guesses() -> None:
    of = authenticator()
    assert outcome(of, KEY, peer="q") is Outcome.ACCEPTED
    guess(of, FAILURES)
    assert outcome(of, KEY) is Outcome.THROTTLED


def test_client_that_repeats_one_wrong_key_does_not_slow_its_neighbours() -> None:
    of = authenticator()
    for _ in range(1000):
        assert outcome(of, "agk_wrong_wrong") is Outcome.INVALID
    assert outcome(of, KEY) is Outcome.ACCEPTED


def test_expired_tokens_are_no_guesses(issuer: Any) -> None:
    of = authenticator(issuer)
    for number in range(100):
        assert outcome(of, issuer.token(exp=NOW - 100, jti=str(number))) is Outcome.EXPIRED
    assert outcome(of, KEY) is Outcome.ACCEPTED


def test_made_up_key_names_are_guesses(issuer: Any) -> None:
    of = authenticator(issuer)
    for number in range(int(FAILURES)):
        authorization = f"Bearer {issuer.token(kid=str(number))}"
        verdict = of.judge(authorization, "p", 0, NOW)
        assert verdict.outcome is Outcome.UNKNOWN_KEY
        assert of.give_up(authorization, "p", 0, verdict).outcome is Outcome.INVALID
    assert outcome(of, KEY) is Outcome.THROTTLED


def test_memory_of_refusals_is_bounded() -> None:
    of = authenticator()
    for number in range(REFUSED_LIMIT + 100):
        outcome(of, f"agk_x_{number}", peer=str(number))
    assert len(of._refused) == REFUSED_LIMIT


@given(
    st.one_of(
        st.text(max_size=80),
        st.text(max_size=80).map(lambda s: f"Bearer {s}"),
        st.builds(lambda a, b: f"Bearer {a}{KEY}{b}", st.text(max_size=4), st.text(max_size=4)),
    )
)
def test_nobody_but_the_holder_of_a_key_is_its_tenant(authorization: str) -> None:
    verdict = authenticator().judge(authorization, "p", 0, NOW)
    is_key = authorization.lower().startswith("bearer ") and authorization[7:].strip(" ") == KEY
    assert (verdict.principal is not None) is is_key
