from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from autoglm.cli.options import load_settings, settings_options
from autoglm.common.settings import Address, ServiceSettings, StringList, short_variable


class ExampleSettings(ServiceSettings):
    grpc_address: Address = "127.0.0.1:50051"
    """Where gRPC is served."""
    endpoint: StringList = ()
    """A pod to use."""
    max_num_seqs: int = Field(default=8, gt=0, validation_alias=short_variable("MAX_BATCH_SIZE"))
    """How many requests run at once."""
    device: Literal["auto", "cpu"] = "auto"
    """Where the model runs."""
    prefix_caching: bool = True
    """Reuse the KV cache of common prefixes."""
    tokenizer: str | None = None
    """Another tokenizer."""


@click.command()
@settings_options(ExampleSettings)
def command(**flags: Any) -> None:
    settings = load_settings(ExampleSettings, flags)
    click.echo(settings.model_dump_json(include=set(ExampleSettings.__annotations__)))


def invoke(*args: str, **environment: str) -> Any:
    return CliRunner().invoke(command, args, env=environment)


def settings(*args: str, **environment: str) -> ExampleSettings:
    result = invoke(*args, **environment)
    assert result.exit_code == 0, result.output
    return ExampleSettings.model_validate_json(result.output)


def test_without_flags_the_defaults_of_the_class_hold() -> None:
    assert settings() == ExampleSettings()


def test_every_field_is_a_flag() -> None:
    given = settings(
        *("--grpc-address", "0.0.0.0:1"),
        *("--endpoint", "grpc://a:1", "--endpoint=http://b:2"),
        *("--max-num-seqs", "4", "--device", "cpu", "--no-prefix-caching", "--tokenizer", "t"),
    )
    assert given == ExampleSettings(
        grpc_address="0.0.0.0:1",
        endpoint=("grpc://a:1", "http://b:2"),
        max_num_seqs=4,
        device="cpu",
        prefix_caching=False,
        tokenizer="t",
    )


def test_the_environment_counts_and_flags_win_over_it() -> None:
    environment = {"AUTOGLM_DEVICE": "cpu", "MAX_BATCH_SIZE": "2", "AUTOGLM_ENDPOINT": "a,b"}
    assert settings(**environment) == ExampleSettings(
        device="cpu", max_num_seqs=2, endpoint=("a", "b")
    )
    won = settings("--device", "auto", "--max-num-seqs", "3", "--endpoint", "c", **environment)
    assert won == ExampleSettings(device="auto", max_num_seqs=3, endpoint=("c",))


def test_all_problems_are_printed_and_the_exit_code_is_64() -> None:
    result = invoke("--grpc-address", "nowhere", "--max-num-seqs", "none")
    assert result.exit_code == 64
    assert "--grpc-address / AUTOGLM_GRPC_ADDRESS: 'nowhere' is not HOST:PORT" in result.stderr
    assert "--max-num-seqs" in result.stderr


@pytest.mark.parametrize(
    "expected",
    [
        "--grpc-address TEXT Where gRPC is served. [default: 127.0.0.1:50051; env:"
        " AUTOGLM_GRPC_ADDRESS]",
        "--endpoint TEXT A pod to use. [may be repeated; env: AUTOGLM_ENDPOINT]",
        "--max-num-seqs INTEGER How many requests run at once. [default: 8; env:"
        " AUTOGLM_MAX_BATCH_SIZE, MAX_BATCH_SIZE]",
        "--device [auto|cpu] Where the model runs. [default: auto; env: AUTOGLM_DEVICE]",
        "--prefix-caching / --no-prefix-caching Reuse the KV cache of common prefixes.",
        "--tokenizer TEXT Another tokenizer. [env: AUTOGLM_TOKENIZER]",
    ],
)
def test_help_says_meaning_default_and_variable(expected: str) -> None:
    assert expected in " ".join(invoke("--help").output.split())
