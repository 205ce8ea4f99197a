import pytest

from autoglm.gateway.limits.tenants import TenantPolicy, Tenants, tenants_of


def test_unnamed_tenants_get_the_default() -> None:
    tenants = tenants_of(b'{"tenants": {"a": {"weight": 2}}, "default": {"requestsPerMinute": 60}}')
    assert tenants.of("stranger") == TenantPolicy(requests_per_minute=60)


def test_named_tenant_takes_what_it_leaves_out_from_the_default() -> None:
    tenants = tenants_of(
        b'{"tenants": {"a": {"weight": 2, "priority": -1}}, "default": {"tokensPerMinute": 600}}'
    )
    assert tenants.of("a") == TenantPolicy(weight=2, priority=-1, tokens_per_minute=600)


def test_null_lifts_a_rate_of_the_default() -> None:
    tenants = tenants_of(
        b'{"tenants": {"a": {"tokensPerMinute": null}}, "default": {"tokensPerMinute": 600}}'
    )
    assert tenants.of("a").tokens_per_minute is None


def test_no_rules_limit_no_tenant() -> None:
    assert Tenants().of("a") == tenants_of(b"{}").of("a") == TenantPolicy()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b'{"tenants": {"a": {"weight": 0}}}', "weight"),
        (b'{"tenants": {"a": {"requestPerMinute": 5}}}', "requestPerMinute"),
        (b'{"default": {"tokensPerMinute": -1}}', "tokensPerMinute"),
        (b'{"default": {"burstSeconds": 0}}', "burstSeconds"),
        (b'{"default": {"priority": 1.5}}', "priority"),
        (b'{"default": null}', "default"),
        (b'{"tenants": null}', "tenants"),
        (b'{"tenants": {"a": null}}', "tenants"),
        (b'{"tenants": {"a": {"weight": null}}}', "weight"),
        (b'{"tenants": {"a": {"priority": null}}}', "priority"),
        (b'{"default": {"burstSeconds": null}}', "burstSeconds"),
        (b"null", "tenants file"),
        (b"not json", "tenants file"),
        (b'{"tenants": {"\xff": {}}}', "tenants file"),
    ],
)
def test_wrong_rules_are_refused_by_name(text: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tenants_of(text)
