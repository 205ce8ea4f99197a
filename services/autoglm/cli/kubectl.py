"""`kubectl autoglm`: the commands that inspect a cluster, as a kubectl plugin.

Entry point of the console script `kubectl-autoglm`, which kubectl finds on PATH. Its commands have
no options for a gateway.
"""

from __future__ import annotations

import sys
from types import MappingProxyType

import click

from autoglm.cli import Lazy, LazyGroup, run
from autoglm.cli.options import examples


class Plugin(LazyGroup):
    offered = MappingProxyType(
        {
            "status": Lazy(
                "Show the status of deployments, with problems and remedies.",
                "cli",
                "status.cluster",
            ),
            "explain": Lazy(
                "Check each step of a deployment, from its spec to its URL.",
                "cli",
                "status.explain",
            ),
            "precheck": Lazy(
                "Check whether the cluster can run a deployment.", "cli", "precheck.command"
            ),
        }
    )


@click.group(
    cls=Plugin,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("kubectl autoglm status", "kubectl autoglm explain chat -n models"),
)
@click.version_option(package_name="open-autoglm", message="%(prog)s %(version)s")
def plugin() -> None:
    """Inspect AutoGLMDeployments."""


def main() -> None:
    sys.exit(run(sys.argv[1:], plugin, "kubectl autoglm"))
