"""`autoglm completion`: the script with which a shell completes commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from autoglm.cli.options import examples


@click.command(
    epilog=examples(
        "autoglm completion bash > ~/.local/share/bash-completion/completions/autoglm",
        'autoglm completion zsh > "${fpath[1]}/_autoglm"',
        "autoglm completion fish > ~/.config/fish/completions/autoglm.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and flags in SHELL."""
    kind, group = get_completion_class(shell), context.find_root().command
    assert kind is not None, "click has all three"
    click.echo(kind(group, {}, "autoglm", "_AUTOGLM_COMPLETE").source())
