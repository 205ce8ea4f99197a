import pytest

from autoglm.common.addresses import split_address
from autoglm.common.settings import (
    Address,
    ServiceSettings,
    SettingsError,
    StringList,
)


class Example(ServiceSettings):
    address: Address = "127.0.0.1:1"
    names: StringList = ()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_LEVEL", "AUTOGLM_LOG_LEVEL", "AUTOGLM_ADDRESS", "AUTOGLM_NAMES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        ("pod.ns:65535", ("pod.ns", 65535)),
    ],
)
def test_addresses_are_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:http", "host:65536"])
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_ADDRESS", "env:1")
    assert Example.load({}).address == "env:1"
    assert Example.load({"address": "flag:2"}).address == "flag:2"
    assert Example.load({"address": None}).address == "env:1"


def test_the_short_variable_is_read_and_the_long_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert Example.load({}).log_level == "debug"
    monkeypatch.setenv("AUTOGLM_LOG_LEVEL", "error")
    assert Example.load({}).log_level == "error"


def test_a_list_is_repeated_or_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_NAMES", "a,b")
    assert Example.load({}).names == ("a", "b")
    assert Example.load({"names": ("c",)}).names == ("c",)


def test_all_problems_are_reported_at_once_by_flag_and_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        Example.load({"address": "nowhere", "trace_sample_ratio": 2})
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("--trace-sample-ratio / AUTOGLM_TRACE_SAMPLE_RATIO: ")
    assert lines[1].startswith("--address / AUTOGLM_ADDRESS: 'nowhere' is not HOST:PORT")
