"""What an engine keeps blocks apart by: the tenant's salt, and the client's own inside of it."""

from autoglm.common.rpc import CACHE_SALT, Rpc, current_rpc, rpc_from_metadata
from autoglm.inference.kv import cache_salt


def test_without_a_gateway_the_client_decides() -> None:
    assert cache_salt.effective() == ""
    assert cache_salt.effective("mine") == "mine"


def test_a_tenants_salt_cannot_be_replaced_by_a_clients() -> None:
    with cache_salt.salted("acme"):
        plain, own = cache_salt.effective(), cache_salt.effective("mine")
    with cache_salt.salted("evil"):
        others = cache_salt.effective(), cache_salt.effective("mine"), cache_salt.effective("acme")

    assert len({plain, own, *others, "mine", ""}) == 7
    assert {len(salt) for salt in (plain, own, *others)} == {32}
    assert cache_salt.effective() == ""


def test_grpc_has_it_as_metadata() -> None:
    token = current_rpc.set(rpc_from_metadata("/m", [(CACHE_SALT, "acme")]))
    by_grpc = cache_salt.effective()
    current_rpc.reset(token)
    with cache_salt.salted("acme"):
        assert cache_salt.effective() == by_grpc != ""


def test_the_salt_is_not_shown_where_the_call_is_logged() -> None:
    assert "acme" not in repr(Rpc(cache_salt="acme"))
