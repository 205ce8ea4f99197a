"""Settings of a process: one frozen class a service, read once in its `app.py`.

A setting is a flag (`--max-num-seqs`), an environment variable (`AUTOGLM_MAX_NUM_SEQS`) and a
Python name (`max_num_seqs`); flags win over the environment. A default exists once, here.
Durations are float seconds. All problems are reported together, each naming its flag and variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from autoglm.common.addresses import split_address, without_user_info


class SettingsError(ValueError):
    """One or more settings are wrong; the text has a line for each."""


def _checked_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_checked_address)]


def _split_commas(value: object) -> object:
    return tuple(v for v in value.split(",") if v) if isinstance(value, str) else value


# A list that a flag gives by repetition and a variable gives separated by commas.
StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


def short_variable(name: str) -> AliasChoices:
    """Accept the variable without our prefix as well, as container images commonly name it."""
    return AliasChoices(f"AUTOGLM_{name}", name)


class ProcessSettings(BaseSettings):
    """Settings of every long-running process."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_prefix="AUTOGLM_",
        use_attribute_docstrings=True,
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias=short_variable("LOG_LEVEL")
    )
    """Least severe log line to write: debug, info, warning or error."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or plain text for a terminal."""
    traces: str = "none"
    """Where spans go: none, console, file:PATH, or otlp:URL (gRPC, such as otlp:http://host:4317)."""
    trace_sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of new traces to record; a caller's own decision is always followed."""

    @classmethod
    def load(cls, flags: Mapping[str, Any]) -> Self:
        """Return the settings from flags (None: not given) and the environment.

        Raises SettingsError with every problem.
        """
        try:
            return cls(**{k: v for k, v in flags.items() if v is not None and v != ()})
        except ValidationError as error:
            secrets = {name for name, field in cls.model_fields.items() if not field.repr}
            problems = (_problem(problem, secrets) for problem in error.errors())
            # Without the cause, which quotes the values.
            raise SettingsError("\n".join(problems)) from None

    @classmethod
    def exposed_flags(cls, flags: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the given flags whose values are secret, which the process list shows."""
        return tuple(
            f"--{name.replace('_', '-')}"
            for name, field in cls.model_fields.items()
            if not field.repr and flags.get(name)
        )


class ServiceSettings(ProcessSettings):
    """Settings of every process that serves requests."""

    shutdown_grace_seconds: float = Field(default=30.0, ge=0)
    """How long requests may run after SIGTERM before they are ended, in seconds."""
    tls_cert_file: str = ""
    """PEM certificate chain to serve with; empty serves without TLS. Re-read when it changes."""
    tls_key_file: str = ""
    """PEM private key of the certificate."""
    tls_client_ca_file: str = ""
    """PEM authorities of client certificates; set, every client must present one (mTLS)."""


def _problem(error: Any, secrets: Set[str]) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        # It concerns several settings together; the message names them.
        return without_user_info(message)
    name = str(error["loc"][0]).lower().removeprefix("autoglm_")
    flag, variable = f"--{name.replace('_', '-')}", f"AUTOGLM_{name.upper()}"
    given = "" if name in secrets else f" (got {error['input']!r})"
    return without_user_info(f"{flag} / {variable}: {message}{given}")
