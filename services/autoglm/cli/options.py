"""Options that several commands share: a service's settings, the connection, sampling, output."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar, Union, get_args, get_origin

import click

from autoglm.client import Client, TlsFiles

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from autoglm.common.settings import ProcessSettings

BAD_SETTINGS = 64
Function = TypeVar("Function", bound=Callable[..., Any])
S = TypeVar("S", bound="ProcessSettings")


def examples(*lines: str) -> str:
    """Return an epilog with examples, which click does not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def settings_options(cls: type[ProcessSettings]) -> Callable[[Function], Function]:
    """Add a flag for each field of a settings class; `load_settings` validates the values."""

    def decorate(command: Function) -> Function:
        for name, field in reversed(cls.model_fields.items()):
            command = _setting(name, field, cls.model_config.get("env_prefix", ""))(command)
        return command

    return decorate


def load_settings(cls: type[S], flags: Mapping[str, Any]) -> S:
    """Load settings from flags and environment; exit with 64 and all problems on stderr."""
    from autoglm.common.settings import SettingsError

    try:
        return cls.load(flags)
    except SettingsError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(BAD_SETTINGS) from error


def _setting(name: str, field: FieldInfo, prefix: str) -> Callable[[Function], Function]:
    flag, annotation = name.replace("_", "-"), _inner(field.annotation)
    notes = [] if field.default in (None, "", ()) else [f"default: {_shown(field.default)}"]
    notes.append(f"env: {', '.join(_variables(name, field, prefix))}")
    described = field.description or ""
    if get_origin(annotation) is tuple and "repeated" not in described:
        notes.insert(0, "may be repeated")
    text = f"{described}  [{'; '.join(notes)}]"
    if annotation is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=text)
    return click.option(
        f"--{flag}",
        name,
        multiple=get_origin(annotation) is tuple,
        metavar=_metavar(annotation),
        help=text,
    )


def _inner(annotation: Any) -> Any:
    """Return X for `X | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "[" + "|".join(str(a) for a in get_args(annotation)) + "]"
    if annotation is int:
        return "INTEGER"
    return "NUMBER" if annotation is float else "TEXT"


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _variables(name: str, field: FieldInfo, prefix: str) -> list[str]:
    alias = field.validation_alias
    if alias is None:
        return [f"{prefix}{name.upper()}"]
    return [alias] if isinstance(alias, str) else [str(c) for c in getattr(alias, "choices", ())]


api_key_file_option = click.option(
    "--api-key-file",
    type=click.File(),
    envvar="AUTOGLM_API_KEY_FILE",
    show_envvar=True,
    metavar="FILE",
    help="File with an API key or a token. [default: $AUTOGLM_API_KEY]",
)

_CONNECTION = (
    click.option(
        "--address",
        default="127.0.0.1:50051",
        envvar="AUTOGLM_ADDRESS",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="gRPC address of a gateway or a pod.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline of each request.",
    ),
    *(
        click.option(
            f"--{flag}",
            flag.replace("-", "_"),
            default="",
            envvar=f"AUTOGLM_CLIENT_{flag.replace('-', '_').upper()}",
            show_envvar=True,
            metavar="FILE",
            help=text,
        )
        for flag, text in {
            "tls-ca-file": "CA certificates (PEM) to verify the server with; enables TLS.",
            "tls-cert-file": "Client certificate (PEM), for mTLS.",
            "tls-key-file": "Private key (PEM) of the client certificate.",
        }.items()
    ),
    api_key_file_option,
)

_SAMPLING = (
    click.option("--max-tokens", type=int, help="Maximum number of tokens to generate."),
    click.option("--temperature", type=float, help="Sampling temperature; 0 is greedy."),
    click.option("--top-p", type=float, help="Probability mass to sample from."),
    click.option("--top-k", type=int, help="Number of most likely tokens to sample from."),
    click.option("--seed", type=int, help="Seed for reproducible sampling."),
    click.option("--stop", multiple=True, help="Text that ends the response; may be repeated."),
)

model_option = click.option("--model", default="", help="Served name. [default: the only model]")
output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)

document_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Output format.",
)


def sampling_options(command: Function) -> Function:
    return _all(_SAMPLING, command)


def connection_options(command: Function) -> Function:
    return _all(_CONNECTION, command)


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add connection options; the command gets a Client as its first argument instead of them."""

    @functools.wraps(command)
    def connected(
        *,
        address: str,
        timeout: float,
        tls_ca_file: str,
        tls_cert_file: str,
        tls_key_file: str,
        api_key_file: TextIO | None,
        **options: Any,
    ) -> Any:
        tls = TlsFiles(tls_cert_file, tls_key_file, tls_ca_file)
        try:
            key = api_key_file.read().strip() if api_key_file else None
            client = Client(address, timeout=timeout, tls=tls, api_key=key)
        except OSError as error:
            raise click.UsageError(f"TLS: {error}") from error
        with client:
            return command(client, **options)

    return connection_options(connected)


def _all(options: tuple[Callable[[Any], Any], ...], command: Function) -> Function:
    for option in reversed(options):
        command = option(command)
    return command


def chosen_model(client: Client, name: str) -> str:
    """Return the given name, or the name of the only model. Raises ClickException."""
    if name:
        return name
    names = [m.name for m in client.list_models() if not m.parent]
    if len(names) == 1:
        return names[0]
    if not names:
        raise click.ClickException("no model is available; `autoglm status` shows the cause")
    raise click.UsageError(f"several models are available; set --model to {', '.join(names)}")


def given_text(words: tuple[str, ...]) -> str:
    """Return the arguments as one text, or standard input without arguments."""
    if words:
        return " ".join(words)
    text = "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    if not text:
        raise click.UsageError("missing text; pass it as an argument or on standard input")
    return text
