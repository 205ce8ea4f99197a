"""Settings of the gateway of `autoglm up` and `serve`: a file with any, flags for common ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from autoglm.api import InvalidSpec
from autoglm.api.documents import read_yaml
from autoglm.cli.options import BAD_SETTINGS, load_settings
from autoglm.gateway.settings import GatewaySettings

COMMON = (
    "api_keys_file",
    "allow_anonymous",
    "tenants_file",
    "jwt_jwks",
    "jwt_secret_file",
    "jwt_issuer",
    "jwt_audience",
    "tls_cert_file",
    "tls_key_file",
    "data_plane",
    "route_debug",
)
"""Settings with a flag of their own."""
_NOT_HERE = {
    "endpoints_file": "`autoglm up` writes this file itself; leave it out",
    "shutdown_grace_seconds": "is the longest spec.drain.gracePeriodSeconds; leave it out",
    "upstream_api_key": "would show in the process list; give upstream_api_key_file",
}


def merged(file: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, overridden by the flags that are given, and validate them.

    Exits with 64 and all problems on stderr.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    settings = (_read(file) if file else {}) | given
    load_settings(GatewaySettings, settings)
    absent = [
        f"--{name.replace('_', '-')}: there is no file {value}"
        for name, value in settings.items()
        if name.endswith("_file") and value and not Path(value).is_file()
    ]
    if absent:
        _exit("\n".join(absent))
    return settings


def as_flags(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags of `autoglm gateway` for the settings. Pure."""
    return tuple(flag for name, value in settings.items() for flag in _flags(name, value))


def _flags(name: str, value: Any) -> Iterator[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
    elif isinstance(value, list | tuple):
        yield from (f"--{flag}={each}" for each in value)
    else:
        yield f"--{flag}={value}"


def _read(file: Path) -> dict[str, Any]:
    """Return the settings of a YAML or JSON file; exits with 64 where it has something else."""
    try:
        documents = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (InvalidSpec, OSError, UnicodeDecodeError) as error:
        _exit(str(error))
    settings = documents[0] if len(documents) == 1 else None
    if not isinstance(settings, dict):
        _exit(f"{file}: give one mapping of settings, such as `max_inflight: 200`")
    if problems := list(problems_in(settings)):
        _exit("\n".join(f"{file}: {problem}" for problem in problems))
    named = {str(key).replace("-", "_"): value for key, value in settings.items()}
    return {name: value for name, value in named.items() if value is not None}


def problems_in(settings: Mapping[Any, Any]) -> Iterator[str]:
    """Yield a sentence for each key that is not a setting, or not one of a file. Pure."""
    known = [name for name in GatewaySettings.model_fields if name not in _NOT_HERE]
    for key in settings:
        name = str(key).replace("-", "_")
        if name in _NOT_HERE:
            yield f"{key}: {_NOT_HERE[name]}"
        elif name not in known:
            nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
            yield f"{key}: is no setting of the gateway; the nearest is {nearest}"


def _exit(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise click.exceptions.Exit(BAD_SETTINGS)
