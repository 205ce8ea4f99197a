"""Salts of tenants: the same everywhere with one key, and never another tenant's."""

from pathlib import Path

import pytest

from autoglm.gateway.endpoints.kubernetes_objects import resource_of
from autoglm.gateway.request.prefix_cache import CacheSalts, read_key

KEY = b"0123456789abcdef"
ISOLATED = CacheSalts(KEY, "Isolated")


def test_a_tenant_has_one_salt_wherever_the_key_is_the_same() -> None:
    assert ISOLATED.of("acme", None) == CacheSalts(KEY, "Shared").of("acme", "Isolated")
    assert len(ISOLATED.of("acme", None)) == 32


def test_tenants_and_keys_have_salts_of_their_own() -> None:
    salts = {
        ISOLATED.of("acme", None),
        ISOLATED.of("evil", None),
        ISOLATED.of("", None),
        CacheSalts(KEY[::-1], "Isolated").of("acme", None),
    }
    assert len(salts) == 4


def test_shared_models_have_none_and_the_model_comes_before_the_default() -> None:
    assert ISOLATED.of("acme", "Shared") == ""
    assert CacheSalts(KEY, "Shared").of("acme", None) == ""
    assert CacheSalts(KEY, "Shared").of("acme", "Isolated") == ISOLATED.of("acme", None)


def test_a_key_file_is_read_without_its_line_break_and_a_short_one_is_rejected(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert read_key(str(path)) == KEY
    path.write_bytes(b"short\n")
    with pytest.raises(ValueError, match=r"prefix_cache_key_file .* has 5 bytes; give 16 at least"):
        read_key(str(path))
    with pytest.raises(OSError, match="no-such-key"):
        read_key(str(tmp_path / "no-such-key"))


def test_without_a_file_processes_of_one_gateway_share_a_key() -> None:
    assert read_key("") == read_key("")
    assert len(read_key("")) >= 32


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ("{}", None),
        ('{"tenancy": {}}', None),
        ('{"tenancy": {"prefixCache": "Shared"}}', "Shared"),
        ('{"tenancy": {"prefixCache": "Isolated"}}', "Isolated"),
        ('{"tenancy": {"prefixCache": "OfANewerOperator"}}', "Isolated"),
        ('{"tenancy": {"prefixCache": 1}}', "Isolated"),
        ('{"tenancy": ["Shared"]}', "Isolated"),
        ('{"tenancy": ""}', "Isolated"),
    ],
)
def test_a_resource_says_what_its_tenants_share(spec: str, mode: str | None) -> None:
    found = resource_of(f'{{"metadata": {{"name": "m"}}, "spec": {spec}}}'.encode())
    assert found.rules.tenancy.prefix_cache == mode
