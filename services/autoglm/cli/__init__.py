"""The `autoglm` command. Decides exit codes; each command is a module of its own.

A command's module is imported when it runs, so `autoglm --help` needs only a core install and a
command that lacks packages says which extra brings them. Called by the console scripts `autoglm`
and `openautoglm`; `kubectl-autoglm` is in `kubectl`.

Exit codes: 0 done, 1 the server said no (`REASON: message` on stderr), 2 wrong usage, 3 what
was looked at is not as it should be, 64 wrong
settings, 130 interrupted; the services have their own besides.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import click

from autoglm.common.errors import AutoGLMError

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command's one-line help, and the extra of the distribution that it needs."""

    help: str
    extra: str = ""
    module: str = ""
    """Where it is; relative to `autoglm.cli`; empty: `commands.` and its own name."""


COMMANDS = {
    "chat": Lazy("Talk to a model."),
    "deploy": Lazy("Create or change deployments on Kubernetes.", "cli"),
    "explain": Lazy(
        "Follow a deployment on Kubernetes from its spec to its URL.", "cli", "status.explain"
    ),
    "explain-route": Lazy(
        "Say where a gateway would send a request, and why.", module="commands.explain_route"
    ),
    "gateway": Lazy("Run a gateway.", "gateway"),
    "generate": Lazy("Complete a prompt."),
    "inference": Lazy("Run an inference pod.", "vllm"),
    "keys": Lazy("Make API keys.", "gateway"),
    "models": Lazy("List the models that can be asked for."),
    "operator": Lazy("Run the operator on Kubernetes.", "operator"),
    "predict": Lazy("Classify a text over labels."),
    "precheck": Lazy(
        "Say whether a cluster, or this machine, can run a deployment.", "cli", "precheck.command"
    ),
    "size": Lazy("Say what memory and which GPUs a model needs.", "cli"),
    "status": Lazy(
        "Show what runs, what is wrong and what to do: a gateway, or a cluster.",
        module="status.command",
    ),
    "trace": Lazy("Show the spans of one request as a tree.", "cli"),
    "up": Lazy("Run manifests as local processes.", "cli"),
    "version": Lazy("Print the version."),
}


class LazyGroup(click.Group):
    """Knows its commands by name; imports `autoglm.cli.commands.NAME` and takes its `command`."""

    offered: Mapping[str, Lazy] = MappingProxyType(COMMANDS)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.offered)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.offered.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(
                f"autoglm.cli.{entry.module or 'commands.' + cmd_name}"
            )
        except ModuleNotFoundError as error:
            raise _missing(f"{ctx.command_path} {cmd_name}", entry, error) from error
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.offered.items()])


def _missing(name: str, entry: Lazy, error: ModuleNotFoundError) -> Exception:
    package = (error.name or "").partition(".")[0]
    if not entry.extra or package == "autoglm":
        return error
    return click.ClickException(
        f"`{name}` needs the package {package!r}: pip install 'open-autoglm[{entry.extra}]'"
    )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  autoglm up -f examples/tiny-glm.yaml
  autoglm chat "What is Open-AutoGLM?"
  autoglm models --output json
""",
)
@click.version_option(package_name="open-autoglm", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve language models over gRPC and REST: run services, and talk to them."""


def run(args: Sequence[str], group: click.Group = cli, name: str = "autoglm") -> int:
    """The exit code of `autoglm ARGS`; everything a user should read has been written."""
    try:
        code = group.main(args=list(args), prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except AutoGLMError as error:
        click.echo(f"{error.reason}: {error.message}", err=True)
        return 1
    except click.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def main() -> None:
    # Before gRPC is imported: its C core reports connections that servers close on standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run(sys.argv[1:]))
