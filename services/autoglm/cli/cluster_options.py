"""Options of the commands that inspect a Kubernetes cluster, with kubectl's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from autoglm.cli.cluster import Cluster

NOT_HEALTHY = 3
"""Exit code if a deployment is not healthy."""


@dataclass(frozen=True, slots=True)
class Where:
    """Cluster and namespaces that a command inspects."""

    namespace: str = ""
    """Empty: the namespace of the context."""
    is_everywhere: bool = False
    context: str = ""
    kubeconfig: str = ""

    @property
    def is_named(self) -> bool:
        return self != Where()

    def open(self) -> Cluster:
        # `status` also works in core installs, which have no Kubernetes client.
        from autoglm.cli.cluster import Cluster

        return Cluster(self.kubeconfig or None, self.context or None)

    def namespace_in(self, cluster: Cluster) -> str:
        """Return the namespace to inspect, empty for all."""
        return "" if self.is_everywhere else self.namespace or cluster.namespace


_OPTIONS = (
    click.option("-n", "--namespace", default="", help="Namespace. [default: the context's]"),
    click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
    click.option("--context", default="", help="Context of the kubeconfig. [default: current]"),
    click.option("--kubeconfig", default="", help="Kubeconfig file. [default: $KUBECONFIG]"),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets a Where as `where` instead of them."""

    @functools.wraps(command)
    def placed(
        *, namespace: str, all_namespaces: bool, context: str, kubeconfig: str, **options: Any
    ) -> Any:
        if namespace and all_namespaces:
            raise click.UsageError(f"-A and -n {namespace} exclude each other; give one")
        where = Where(namespace, all_namespaces, context, kubeconfig)
        return command(where=where, **options)

    for option in reversed(_OPTIONS):
        placed = option(placed)
    return placed


def watch_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--watch`."""
    text = "After listing, watch for changes until Ctrl-C."
    option = click.option("-w", "--watch", is_flag=True, help=text)
    return option(command)
