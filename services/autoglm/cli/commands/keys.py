"""`autoglm keys`: makes API keys. Asks nobody and keeps nothing; the gateway reads the file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import msgspec

from autoglm.cli.options import examples, output_option
from autoglm.cli.output import print_json
from autoglm.gateway.identity.keys import new_key
from autoglm.gateway.request.principal import Role


@click.group(
    epilog=examples(
        "autoglm keys create --tenant acme --name ci",
        "autoglm keys create --help",
    )
)
def command() -> None:
    """Make API keys for a gateway with --api-keys-file."""


@command.command(
    epilog=examples(
        "autoglm keys create --tenant acme --name ci",
        "autoglm keys create --tenant acme --model 'glm-*' --expires-in-days 90",
        "autoglm keys create --tenant acme --role Admin --output json",
        "autoglm keys create --tenant acme --output json | jq '{keys: [.entry]}' > keys.json",
    )
)
@click.option("--tenant", required=True, help="Whose requests it is for.")
@click.option("--name", default="", help="What logs call it. [default: its id]")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    default=[Role.USER.value],
    show_default=True,
    help="What it may do; may be repeated.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="A model it may use, with * and ?; may be repeated. [default: all]",
)
@click.option(
    "--expires-in-days", type=click.IntRange(min=1, max=36500), help="[default: it does not]"
)
@output_option
def create(
    tenant: str,
    name: str,
    roles: tuple[str, ...],
    models: tuple[str, ...],
    expires_in_days: int | None,
    output: str,
) -> None:
    """Print a new key, once, and what the keys file is to keep of it."""
    days = timedelta(days=expires_in_days or 0)
    expires = (datetime.now(UTC) + days).replace(microsecond=0) if expires_in_days else None
    try:
        key, entry = new_key(tenant, name, tuple(map(Role, roles)), models or None, expires)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output == "json":
        print_json({"key": key, "entry": msgspec.to_builtins(entry)})
        return
    click.echo(f"Key, shown this once: {key}")
    click.echo('For "keys" of the keys file:')
    click.echo(msgspec.json.encode(entry).decode())
