"""`autoglm keys`: creates API keys. Needs no server and stores nothing."""

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
    """Manage API keys for a gateway with --api-keys-file."""


@command.command(
    epilog=examples(
        "autoglm keys create --tenant acme --name ci",
        "autoglm keys create --tenant acme --model 'glm-*' --expires-in-days 90",
        "autoglm keys create --tenant acme --role Admin --output json",
        "autoglm keys create --tenant acme --output json | jq '{keys: [.entry]}' > keys.json",
    )
)
@click.option("--tenant", required=True, help="Tenant of the key.")
@click.option("--name", default="", help="Name of the key in logs. [default: its id]")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    default=[Role.USER.value],
    show_default=True,
    help="Role of the key; may be repeated.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="Model that the key may use, with * and ?; may be repeated. [default: all]",
)
@click.option(
    "--expires-in-days", type=click.IntRange(min=1, max=36500), help="[default: no expiry]"
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
    """Create a key; print it once, with its entry for the keys file."""
    days = timedelta(days=expires_in_days or 0)
    expires = (datetime.now(UTC) + days).replace(microsecond=0) if expires_in_days else None
    try:
        key, entry = new_key(tenant, name, tuple(map(Role, roles)), models or None, expires)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output == "json":
        print_json({"key": key, "entry": msgspec.to_builtins(entry)})
        return
    click.echo(f"Key (shown only once): {key}")
    click.echo('Entry for "keys" in the keys file:')
    click.echo(msgspec.json.encode(entry).decode())
