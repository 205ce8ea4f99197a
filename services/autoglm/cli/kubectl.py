"""`kubectl autoglm`: the commands that look at a cluster, as a kubectl plugin.

Called by the console script `kubectl-autoglm`, which kubectl finds on PATH. Here everything is
about a cluster, so that none of a gateway's options is offered.
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
                "Show what runs, what is wrong and what to do.", "cli", "status.kubectl"
            ),
            "explain": Lazy(
                "Follow a deployment from its spec to its URL.", "cli", "status.explain"
            ),
            "precheck": Lazy(
                "Say whether the cluster can run a deployment.", "cli", "precheck.command"
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
    """Look at AutoGLMDeployments: what runs, what is wrong and what to do."""


def main() -> None:
    sys.exit(run(sys.argv[1:], plugin, "kubectl autoglm"))
