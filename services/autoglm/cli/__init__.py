"""The `autoglm` command: its commands, loaded lazily, and its exit codes.

A command's module is imported when the command runs, so `autoglm --help` needs only a core install,
and a command with missing packages names the extra to install. Entry point of the console scripts
`autoglm` and `openautoglm`; `kubectl-autoglm` is in `kubectl`.

Exit codes: 0 success, 1 error of the server (`REASON: message` on stderr), 2 usage error, 3 a
deployment is not healthy, 64 invalid settings, 130 interrupted; services have further ones.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import click

from autoglm.common.errors import AutoGLMError
from autoglm.common.packages import install_command

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command's one-line help, the extra that it needs, and its module."""

    help: str
    extra: str = ""
    module: str = ""
    """Module below `autoglm.cli`, as MODULE or MODULE:OBJECT; empty: `commands.NAME`.

    The object is the command, or a function that returns it."""


COMMANDS = {
    "bench": Lazy("Measure latencies and rates under load.", "cli", "bench.command"),
    "chat": Lazy("Chat with a model.", module="commands.requests:chat"),
    "completion": Lazy("Print the script for completion in a shell."),
    "deploy": Lazy("Create or update deployments on Kubernetes.", "cli"),
    "down": Lazy("Drain and end what `autoglm up` runs.", "cli", "running:down"),
    "explain": Lazy(
        "Check each step of a deployment, from its spec to its URL.", "cli", "status.explain"
    ),
    "explain-route": Lazy(
        "Show where a gateway would route a request, and why.", module="commands.explain_route"
    ),
    "gateway": Lazy("Run a gateway.", "gateway", "commands.services:gateway"),
    "generate": Lazy("Complete a prompt.", module="commands.requests:generate"),
    "inference": Lazy("Run an inference pod.", "vllm", "commands.services:inference"),
    "init": Lazy("Write a manifest to start from.", "cli"),
    "keys": Lazy("Create API keys.", "gateway"),
    "load": Lazy(
        "Fill a directory with models, for the cache of a cluster.", "vllm", "weights.load"
    ),
    "logs": Lazy("Print the logs of what `autoglm up` runs.", "cli", "running:logs"),
    "models": Lazy("List the available models.", module="commands.requests:models"),
    "operator": Lazy("Run the operator on Kubernetes.", "operator", "commands.services:operator"),
    "predict": Lazy("Classify a text over labels.", module="commands.requests:predict"),
    "precheck": Lazy(
        "Check whether a cluster or this machine can run a deployment.", "cli", "precheck.command"
    ),
    "ps": Lazy("List the processes that `autoglm up` runs.", "cli", "running:ps"),
    "pull": Lazy("Fetch a model before it is served.", "cli"),
    "restart": Lazy("Restart models or processes of `autoglm up`.", "cli", "running:restart"),
    "schema": Lazy("Print the JSON Schema of manifests, for editors.", "cli"),
    "serve": Lazy("Serve a model without a manifest.", "cli"),
    "size": Lazy("Estimate the memory and GPUs that a model needs.", "cli"),
    "status": Lazy(
        "Show the status of a gateway or of deployments, with problems and remedies.",
        module="status.command",
    ),
    "trace": Lazy("Show the spans of one request as a tree.", "cli"),
    "up": Lazy("Run manifests as local processes.", "cli"),
    "validate": Lazy("Check manifests without a cluster.", "cli"),
    "version": Lazy("Print the version."),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command only when that command is used."""

    offered: Mapping[str, Lazy] = MappingProxyType(COMMANDS)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.offered)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.offered.get(cmd_name)
        if entry is None:
            return None
        name, _, attribute = (entry.module or f"commands.{cmd_name}").partition(":")
        try:
            module = importlib.import_module(f"autoglm.cli.{name}")
            found: Any = getattr(module, attribute or "command")
            command: click.Command = found if isinstance(found, click.Command) else found()
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if not entry.extra or package == "autoglm":
                raise
            raise click.ClickException(
                f"`{ctx.command_path} {cmd_name}` needs the package {package!r}: "
                f"{install_command(entry.extra)}"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.offered.items()])


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
    """Serve language models over gRPC and REST."""


def run(args: Sequence[str], group: click.Group = cli, name: str = "autoglm") -> int:
    """Run `autoglm ARGS`, print its errors, and return its exit code."""
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
    # Before gRPC is imported: its C core logs connections that servers close to standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run(sys.argv[1:]))
