"""Authentication of the caller, over both kinds of credentials."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm.common import errors
from autoglm.common.rpc import Credentials
from autoglm.gateway.identity import tokens
from autoglm.gateway.identity.authenticate import (
    REJECTED_LIMIT,
    Authenticator,
    KeysUnavailable,
    Known,
    Outcome,
    credential_of,
    credentials_in,
)
from autoglm.gateway.identity.jwks import FETCH_PAUSE_SECONDS, KeySet, key_set_of_jwks
from autoglm.gateway.identity.keys import keys_of, new_key
from autoglm.gateway.identity.throttle import FAILURES
from autoglm.gateway.request.principal import ANONYMOUS, Role

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


def authorization(*values: str) -> Credentials:
    return tuple(("authorization", value) for value in values)


def bearer(credential: str) -> Credentials:
    return authorization(f"Bearer {credential}")


def x_api_key(*values: str) -> Credentials:
    return tuple(("x-api-key", value) for value in values)


def outcome(of: Authenticator, credential: str, peer: str = "p", at: float = 0.0) -> Outcome:
    return of.judge(bearer(credential), peer, at, NOW + at).outcome


def guess(of: Authenticator, count: float, peer: str = "p", at: float = 0.0) -> None:
    for number in range(int(count)):
        outcome(of, f"agk_{ENTRY.id}_{number}-{at}", peer, at)


def test_key_and_token_name_the_caller(issuer: Any) -> None:
    of = authenticator(issuer)
    key = of.judge(bearer(KEY), "p", 0, NOW)
    token = of.judge(authorization(f"bearer  {issuer.token()}"), "p", 0, NOW)
    assert key.principal and token.principal
    assert (key.method, key.principal.tenant, key.principal.subject) == ("api_key", "acme", "ci")
    assert (token.method, token.principal.subject) == ("jwt", "alice")


def test_a_request_without_a_credential_is_anonymous_only_where_that_is_allowed() -> None:
    assert authenticator(allow_anonymous=True).judge((), "p", 0, NOW).principal is ANONYMOUS
    refused = authenticator().judge((), "p", 0, NOW)
    assert refused.outcome is Outcome.MISSING
    assert isinstance(refused.error(), errors.Unauthenticated)
    assert "x-api-key" in refused.error().message


@pytest.mark.parametrize(
    "value",
    [
        "",
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
def test_wrong_credential_is_refused_even_where_anonymous_is_allowed(value: str) -> None:
    verdict = authenticator(allow_anonymous=True).judge(authorization(value), "p", 0, NOW)
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
    error = of.judge(bearer(issuer.token()), "p", 0, NOW).error()
    assert isinstance(error, KeysUnavailable) and error.retryable and error.retry_after
    assert outcome(of, KEY) is Outcome.ACCEPTED


def test_guessing_is_slowed_and_even_a_right_guess_must_wait() -> None:
    of = authenticator()
    guess(of, FAILURES)
    verdict = of.judge(bearer(KEY), "p", 0, NOW)
    assert verdict.outcome is Outcome.THROTTLED
    error = verdict.error()
    assert isinstance(error, errors.RateLimited) and error.retry_after == 2.0
    assert outcome(of, KEY, at=2.0) is Outcome.ACCEPTED


def test_a_known_caller_stays_in_while_strangers_of_their_address_are_slowed() -> None:
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
        verdict = of.judge(bearer(issuer.token(kid=str(number))), "p", 0, NOW)
        assert verdict.outcome is Outcome.UNKNOWN_KEY
        assert of.give_up("p", 0, verdict).outcome is Outcome.INVALID
    assert outcome(of, KEY) is Outcome.THROTTLED


def test_memory_of_refusals_is_bounded() -> None:
    of = authenticator()
    for number in range(REJECTED_LIMIT + 100):
        outcome(of, f"agk_x_{number}", peer=str(number))
    assert len(of._rejected) == REJECTED_LIMIT


@given(
    st.one_of(
        st.text(max_size=80),
        st.text(max_size=80).map(lambda s: f"Bearer {s}"),
        st.builds(lambda a, b: f"Bearer {a}{KEY}{b}", st.text(max_size=4), st.text(max_size=4)),
    )
)
def test_only_the_holder_of_a_key_is_its_tenant(value: str) -> None:
    verdict = authenticator().judge(authorization(value), "p", 0, NOW)
    value = value.strip(" \t")
    is_key = value.lower().startswith("bearer ") and value[7:].lstrip(" ") == KEY
    assert (verdict.principal is not None) is is_key


MALFORMED = ["{}", "Basic {}", "Bearer {},", "Bearer {} x", "Bearer {0}, Bearer {0}", "Bearer\t{}"]


@pytest.mark.parametrize("form", MALFORMED)
@pytest.mark.parametrize("kind", ["key", "token"])
def test_malformed_credential_never_decides_on_the_well_formed_one(
    issuer: Any, form: str, kind: str
) -> None:
    of, good = authenticator(issuer), KEY if kind == "key" else issuer.token()
    malformed = authorization(form.format(good))
    assert of.judge(malformed, "p", 0, NOW).outcome is Outcome.INVALID
    assert of.judge(bearer(good), "p", 0, NOW).outcome is Outcome.ACCEPTED
    assert of.judge(bearer(good), "q", 0, NOW).outcome is Outcome.ACCEPTED
    assert of.judge(x_api_key(good), "r", 0, NOW).outcome is Outcome.ACCEPTED
    assert of.judge(malformed, "p", 0, NOW).outcome is Outcome.INVALID


@pytest.mark.parametrize("form", MALFORMED)
def test_each_malformed_credential_is_one_guess_however_often_it_is_sent(form: str) -> None:
    of = authenticator()
    for _ in range(100):
        of.judge(authorization(form.format(KEY)), "p", 0, NOW)
    assert of.throttle.wait("p", 0) == 0
    for number in range(int(FAILURES)):
        of.judge(authorization(f"Basic {number}"), "p", 0, NOW)
    assert of.judge(bearer(KEY), "p", 0, NOW).outcome is Outcome.THROTTLED


def test_token_given_up_in_one_form_is_not_given_up_in_another(issuer: Any) -> None:
    of, unknown = authenticator(issuer), issuer.token(kid="r2")
    assert of.judge(authorization(unknown), "p", 0, NOW).outcome is Outcome.INVALID
    verdict = of.judge(bearer(unknown), "p", 0, NOW)
    assert verdict.outcome is Outcome.UNKNOWN_KEY
    of.give_up("p", 0, verdict)
    assert of.judge(bearer(unknown), "p", 0, NOW).outcome is Outcome.INVALID
    assert of.judge(bearer(issuer.token()), "p", 0, NOW).outcome is Outcome.ACCEPTED


def test_token_of_an_unknown_key_may_have_the_keys_fetched_again_later(issuer: Any) -> None:
    of, unknown = authenticator(issuer), bearer(issuer.token(kid="r2"))
    verdict = of.judge(unknown, "p", 0, NOW)
    of.give_up("p", 0, verdict)
    assert of.judge(unknown, "p", FETCH_PAUSE_SECONDS - 0.1, NOW).outcome is Outcome.INVALID
    assert of.judge(unknown, "p", FETCH_PAUSE_SECONDS, NOW).outcome is Outcome.UNKNOWN_KEY


WRONG = "agk_0000_wrong"


@pytest.mark.parametrize(
    ("presented", "header"),
    [
        (bearer(KEY) + x_api_key(WRONG), "x-api-key"),
        (bearer(WRONG) + x_api_key(KEY), "authorization"),
        (x_api_key(KEY) + bearer(WRONG), "authorization"),
        (bearer(KEY) + x_api_key(f"Bearer {KEY}"), "x-api-key"),
        (bearer(KEY) + x_api_key(""), "x-api-key"),
        (authorization("") + x_api_key(KEY), "authorization"),
        (authorization(KEY) + x_api_key(KEY), "authorization"),
        (bearer(KEY) + bearer(WRONG), "authorization"),
        (x_api_key(KEY, WRONG), "x-api-key"),
        (bearer(KEY) + x_api_key(OTHER), "x-api-key"),
        (bearer(KEY) + bearer(OTHER), "authorization"),
    ],
)
@pytest.mark.parametrize("is_known", [False, True])
def test_every_presented_credential_must_be_good(
    presented: Credentials, header: str, is_known: bool
) -> None:
    of = authenticator(allow_anonymous=True)
    if is_known:
        assert outcome(of, KEY) is outcome(of, OTHER) is Outcome.ACCEPTED
    verdict = of.judge(presented, "p", 0, NOW)
    assert (verdict.outcome, verdict.principal) == (Outcome.INVALID, None)
    error = verdict.error()
    assert isinstance(error, errors.Unauthenticated)
    assert error.message.startswith(f"header {header}: ") and error.field == header
    assert KEY not in error.message and OTHER not in error.message


def test_credentials_of_one_principal_may_come_together(issuer: Any) -> None:
    of = authenticator(issuer)
    twice = bearer(KEY) + x_api_key(KEY)
    assert of.judge(twice, "p", 0, NOW).outcome is Outcome.ACCEPTED
    two_tokens = bearer(issuer.token()) + x_api_key(issuer.token(jti="2"))
    assert of.judge(two_tokens, "p", 0, NOW).outcome is Outcome.ACCEPTED


def test_expired_credential_spoils_a_good_one_beside_it(issuer: Any) -> None:
    presented = bearer(KEY) + x_api_key(issuer.token(exp=NOW - 100))
    assert authenticator(issuer).judge(presented, "p", 0, NOW).outcome is Outcome.EXPIRED


def test_credentials_of_two_principals_are_no_guess() -> None:
    of = authenticator()
    for _ in range(100):
        of.judge(bearer(KEY) + x_api_key(OTHER), "p", 0, NOW)
    assert of.throttle.wait("p", 0) == 0
    assert outcome(of, KEY) is outcome(of, OTHER) is Outcome.ACCEPTED


def test_form_of_credential_has_the_documented_decision_and_memory(
    issuer: Any, credential_form: Any
) -> None:
    of = authenticator(issuer)
    secrets = {
        "KEY": KEY,
        "OTHER": OTHER,
        "WRONG": WRONG,
        "JWT": issuer.token(),
        "EXPIRED": issuer.token(exp=NOW - 100),
        "FORGED": issuer.token(issuer.other),
        "UNKNOWN": issuer.token(kid="r9"),
    }

    def filled(text: str) -> str:
        return re.sub(r"[A-Z]{3,}$|[A-Z]{3,}(?=\W)", lambda m: secrets.get(m[0], m[0]), text)

    presented = tuple((name, filled(value)) for name, value in credential_form.presented)
    outcome, principal, _, why = decided(of, presented, "p", 0)
    assert (outcome is Outcome.ACCEPTED) == credential_form.is_served == (principal is not None)
    assert not any(secret in why for secret in secrets.values())

    def digests(kind: str) -> set[bytes]:
        told = [s.partition(": ")[2] for s in credential_form.remembered if s.startswith(kind)]
        values = [one for one in credentials_in(presented) if one.problem]
        malformed = {values[0].digest} if "the value" in told else set()
        tokens = (secrets[name] for name in told if name in secrets)
        return malformed | {credential_of("x-api-key", token).digest for token in tokens}

    assert {digest for _, digest in of._accepted._items} == digests("good")
    assert set(of._rejected._items) == digests("bad")


FORMS = [*MALFORMED, "Bearer {}", "bearer   {} ", "Bearer {}x", ""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_caller_changes_the_decision_on_another_but_by_the_throttle(
    issuer: Any, data: st.DataObject
) -> None:
    """Whatever was presented before, a request is judged as by a gateway that saw nothing yet."""
    known = authenticator(issuer).known
    expired, unknown = issuer.token(exp=NOW - 100), issuer.token(kid="r9")
    texts = st.sampled_from([KEY, OTHER, WRONG, issuer.token(), expired, unknown, "a.b.c", "x"])
    value = st.builds(lambda form, text: form.format(text), st.sampled_from(FORMS), texts)
    header = st.sampled_from(["authorization", "x-api-key"])
    one = st.tuples(header, st.one_of(value, texts))
    presented = st.lists(one, min_size=1, max_size=3).map(tuple)
    steps = data.draw(st.lists(st.tuples(presented, st.sampled_from("pqr")), max_size=40))
    of = Authenticator(known)
    for at, (credentials, peer) in enumerate(steps):
        alone, now = Authenticator(known), float(at) / 10
        expected = decided(alone, credentials, peer, now)
        found = decided(of, credentials, peer, now)
        is_throttled = found[0] is Outcome.THROTTLED and of.throttle.wait(peer, now) > 0
        assert found == expected or is_throttled


def decided(of: Authenticator, presented: Credentials, peer: str, now: float) -> tuple[Any, ...]:
    verdict = of.judge(presented, peer, now, NOW)
    if verdict.outcome is Outcome.UNKNOWN_KEY:
        verdict = of.give_up(peer, now, verdict)
    return verdict.outcome, verdict.principal, verdict.header, verdict.why
