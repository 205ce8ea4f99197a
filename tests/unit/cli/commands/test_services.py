"""Flags of the services are the fields of their settings, none missing, none invented."""

import importlib
import subprocess
import sys
from typing import Any

import click
import pytest

from autoglm import cli

SERVICES = {"gateway": "GatewaySettings", "inference": "InferenceSettings"}
ALL = SERVICES | {"operator": "OperatorSettings"}


@pytest.mark.parametrize("name", ALL)
def test_flags_are_the_fields_of_the_settings(name: str) -> None:
    settings = importlib.import_module(f"autoglm.{name}.settings")
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    fields = getattr(settings, ALL[name]).model_fields
    assert [p.name for p in command.params] == list(fields)


@pytest.mark.parametrize("name", ALL)
def test_every_flag_says_what_it_means(name: str, autoglm: Any) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    for option in command.params:
        assert isinstance(option, click.Option)
        assert option.help and not option.help.startswith(" "), option.name


@pytest.mark.parametrize("name", SERVICES)
def test_wrong_settings_exit_64_before_anything_starts(name: str, autoglm: Any) -> None:
    result = autoglm(name, "--grpc-address", "nowhere", "--log-level", "loud")
    assert (result.code, result.out) == (64, "")
    assert "--grpc-address / AUTOGLM_GRPC_ADDRESS" in result.err
    assert "--log-level / AUTOGLM_LOG_LEVEL" in result.err


@pytest.mark.parametrize("name", SERVICES)
def test_the_exit_code_is_the_services_own(
    name: str, autoglm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "process" if name == "gateway" else "app"
    app = importlib.import_module(f"autoglm.{name}.{module}")
    seen: list[Any] = []

    def run(settings: Any, **_: Any) -> int:
        seen.append(settings)
        return 71

    monkeypatch.setattr(app, "run", run)
    flags = ("--model-path", "/m") if name == "inference" else ()
    assert autoglm(name, "--grpc-address", "127.0.0.1:7", *flags).code == 71
    assert [s.grpc_address for s in seen] == ["127.0.0.1:7"]


@pytest.mark.parametrize("is_flag", [True, False])
def test_gateway_learns_which_flags_show_a_secret(
    autoglm: Any, monkeypatch: pytest.MonkeyPatch, is_flag: bool
) -> None:
    seen: list[Any] = []
    app = importlib.import_module("autoglm.gateway.process")

    def run(_: Any, exposed: Any) -> int:
        seen.append(exposed)
        return 0

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setenv("AUTOGLM_UPSTREAM_API_KEY", "k")
    autoglm("gateway", *(("--upstream-api-key", "k") if is_flag else ()))
    assert seen == [("--upstream-api-key",) if is_flag else ()]


def test_wrong_settings_of_the_operator_are_all_named(autoglm: Any) -> None:
    result = autoglm("operator", "--workers", "0", "--image-pull-policy", "Sometimes")
    assert (result.code, result.out) == (64, "")
    assert "--workers / AUTOGLM_WORKERS" in result.err
    assert "--image-pull-policy / AUTOGLM_IMAGE_PULL_POLICY" in result.err


@pytest.mark.parametrize("flags", [["--kubeconfig", "/no/such/file"], []], ids=["file", "pod"])
def test_an_operator_without_a_cluster_says_how_to_name_one(flags: list[str]) -> None:
    command = [sys.executable, "-m", "autoglm", "operator", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert "--kubeconfig" in done.stderr and "Traceback" not in done.stderr
