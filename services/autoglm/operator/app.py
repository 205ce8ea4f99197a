"""The operator process: wires watches, leader election and reconciles. Called by the CLI.

Every operator watches; only the one that holds the Lease writes. Nothing has to be finished at
shutdown: the next leader reconciles every resource.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any
from uuid import uuid4

import uvloop
from prometheus_client import REGISTRY, CollectorRegistry

from autoglm.api.names import read_rules
from autoglm.common.addresses import cannot_listen
from autoglm.common.admin_server import AdminServer
from autoglm.common.process import ExitCode, Shutdown
from autoglm.common.telemetry import set_up_logs, set_up_traces
from autoglm.kube.client import Client, ConfigException, Configuration, configure
from autoglm.kube.election import Election
from autoglm.kube.kinds import Key
from autoglm.kube.leader import Leader
from autoglm.kube.transport import Transport
from autoglm.kube.verbs import Kube, Limits
from autoglm.kube.write_limit import WriteSlots
from autoglm.operator.dispatch import Dispatcher, Queue
from autoglm.operator.gateways import Gateways
from autoglm.operator.hub_token import HubTokenCopies
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.ownership.model_names import NameIndex, claim_of
from autoglm.operator.plan import plan
from autoglm.operator.profiles import user_of
from autoglm.operator.progress import ProgressPages
from autoglm.operator.reconcile import Reconciler
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import Raw
from autoglm.operator.watches import ChangeHandlers, Watches

_log = logging.getLogger("autoglm.operator")


def run(settings: OperatorSettings) -> int:
    """Run until a signal; return the exit code of the process."""
    set_up_logs(settings.log_level, settings.log_format)
    try:
        set_up_traces("autoglm-operator", settings.traces, settings.trace_sample_ratio)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except ConfigException as error:
        why = f"no access to the API server ({error})"
        return _cannot_start(f"{why}; set --kubeconfig, or run it as a pod", ExitCode.BAD_SETTINGS)
    except ValueError as error:
        return _cannot_start(str(error), ExitCode.BAD_SETTINGS)
    except OSError as error:
        why = cannot_listen(settings.metrics_address, error)
        return _cannot_start(f"{why}; choose another --metrics-address", ExitCode.ADDRESS_IN_USE)
    return 0


def _cannot_start(why: str, code: int) -> int:
    print(f"autoglm operator cannot start: {why}", file=sys.stderr)
    return code


async def _serve(settings: OperatorSettings) -> None:
    configuration = await configure(settings.kubeconfig, settings.context)
    try:
        operator = Operator(settings, configuration)
    except OSError as error:
        raise ConfigException(f"a certificate of the kubeconfig: {error}") from error
    shutdown = Shutdown()
    shutdown.install()
    running = asyncio.create_task(operator.run())
    stopping = asyncio.create_task(shutdown.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        return running.result()
    _log.info("shutting down")
    running.cancel()
    await asyncio.wait((running,))


class Operator:
    """An operator in this process. `wrap` decorates the transport to the API server."""

    def __init__(
        self,
        settings: OperatorSettings,
        configuration: Configuration,
        *,
        wrap: Callable[[Transport], Transport] = lambda transport: transport,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._transport = wrap(Client(configuration, "operator"))
        self._synced = False
        names = NameIndex(read_rules(settings.model_name_rules))
        rng, caches, metrics = Random(), Caches(names=names), Metrics(registry)
        self._rng, self.caches, self._metrics = rng, caches, metrics
        # No other operator has the same, even if two have the same name.
        identity = f"{settings.identity_or_hostname}_{uuid4()}"
        terms, read = settings.terms, settings.request_timeout_seconds
        lease_limits = Limits(terms.request_timeout, lambda: terms.request_timeout)
        self._leader = Leader(
            Kube(self._transport, metrics, lease_limits),
            Key(settings.lease_namespace, settings.lease_name),
            Election(identity, terms),
            self._leadership_changed,
        )
        slots = WriteSlots(settings.workers, metrics.write_limit.set)
        kube = Kube(
            self._transport,
            metrics,
            Limits(read, self._write_seconds, slots, self._leader.fence.guard),
        )
        self._gateways = Gateways(caches.slices, lambda: self._reconciler.is_busy, self._enqueue)
        self._progress = ProgressPages(self._add)
        self._installations = Installations(
            kube, settings.installation, settings.claim_timeout_seconds, self._add
        )
        self._reconciler = Reconciler(
            caches,
            kube,
            metrics,
            self._gateways.routable,
            lambda observed, now: plan(observed, settings, now),
            identity,
            rng,
            self._installations,
            self._turn_changed,
            self._progress,
        )
        self._hub_token = HubTokenCopies(
            kube,
            settings.models.hub_token,
            settings.lease_namespace,
            self._own_resources,
            lambda: self.is_leading,
        )
        self._dispatcher = Dispatcher(Queue(rng), self._reconciler, metrics, settings.workers)
        self._watches = Watches(
            kube,
            caches,
            settings,
            ChangeHandlers(self._add, self._resource_changed, self._profile_changed),
            metrics,
            rng,
        )
        self.admin_port = 0

    @property
    def is_leading(self) -> bool:
        return self._synced and (not self._settings.leader_election or self._leader.is_leading)

    def is_ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return readiness and its details; a standby is ready. Called from other threads too."""
        details: dict[str, Any] = {"synced": self._synced, "leading": self.is_leading}
        if not self._synced:
            details["waiting"] = self._watches.unsynced()
        return self._synced, details

    async def run(self) -> None:
        """Run until cancelled. Raises OSError when the admin address is in use."""
        admin = AdminServer(self._settings.metrics_address, self.is_ready, registry=self._registry)
        self.admin_port = admin.port
        _log.info("listening", extra={"fields": {"admin": admin.port}})
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(admin.lag.beat())
                await self._watches.start(tasks)
                self._synced = True
                _log.info("synced", extra={"fields": {"resources": len(self.caches.resources)}})
                tasks.create_task(self._gateways.run())
                tasks.create_task(self._progress.run())
                tasks.create_task(self._resync())
                tasks.create_task(self._installations.run())
                tasks.create_task(self._hub_token.run())
                tasks.create_task(self._work())
        finally:
            await self._transport.close()
            await asyncio.to_thread(admin.close)

    async def _work(self) -> None:
        """Run election and reconciles; on cancellation end reconciles, then release the Lease."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._settings.leader_election:
                    tasks.create_task(self._leader.run())
                else:
                    self._leadership_changed(True)
                tasks.create_task(self._dispatcher.run())
        finally:
            await self._leader.release()

    async def _resync(self) -> None:
        """Enqueue every resource at each resync, spread over a tenth of the period."""
        seconds = self._settings.resync_seconds
        while True:
            await asyncio.sleep(seconds * self._rng.uniform(0.9, 1.0))
            for key in self.caches.resources.owners():
                self._add(key, 0.1 * seconds * self._rng.random())

    def _write_seconds(self) -> float:
        is_writer = self._leader.is_leading or not self._settings.leader_election
        return self._settings.write_timeout_seconds if is_writer else 0.0

    def _leadership_changed(self, leading: bool) -> None:
        self._metrics.leader.set(int(leading))
        if leading:
            self._enqueue(None)

    def _own_resources(self) -> Iterator[Raw]:
        """Yield the resources that this operator reconciles."""
        mine, resources = self._settings.installation, self.caches.resources
        for key in resources.owners():
            if (resource := resources.get(key)) is not None and mine.is_responsible(resource):
                yield resource

    def _enqueue(self, keys: set[Key] | None) -> None:
        """Enqueue these resources, or all for None."""
        for key in self.caches.resources.owners() if keys is None else keys:
            self._add(key)

    def _resource_changed(self, key: Key) -> None:
        self._reconciler.mark_seen(key)
        self._add(key, urgent=True)
        self._hub_token.resource_changed(key)
        # A model name may be free now, or claimed by an older resource.
        self._enqueue(self.caches.names.put(key, claim_of(self.caches.resources.get(key))))
        self._turn_changed(key)

    def _profile_changed(self, key: Key) -> None:
        self._enqueue(self.caches.profile_users.keys(key.name))

    def _turn_changed(self, key: Key) -> None:
        """Enqueue the resource whose turn it is now to take the profile of this one."""
        resource, index = self.caches.resources.get(key), self.caches.profile_users
        is_mine = resource is not None and self._settings.installation.is_responsible(resource)
        changed = index.put(key, user_of(resource) if is_mine else None)
        for name in changed if self.is_leading else ():
            if (following := index.next_key(self.caches.profile(name))) not in (None, key):
                self._add(following)

    def _add(self, key: Key, after: float = 0.0, *, urgent: bool = False) -> None:
        # A standby reconciles every resource when it takes over.
        if self.is_leading:
            self._dispatcher.add(key, after, urgent=urgent)
            self._gateways.poll_soon()
