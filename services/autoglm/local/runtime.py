"""Applies plans to the processes of an `autoglm up`.

State changes are synchronous; each start of a replica has one task, which lives as long as its
process. `planning` decides; `up` drives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from autoglm.api import AutoGLMDeployment
from autoglm.local import endpoints
from autoglm.local.child import Failure, Files, free_addresses, start
from autoglm.local.gpus import NO_GPUS, Gpus
from autoglm.local.member import Member
from autoglm.local.planning import (
    Action,
    Addresses,
    Forget,
    GiveUp,
    Policy,
    Process,
    Replica,
    Restart,
    Start,
    State,
    Stop,
    Workload,
    plan,
)
from autoglm.local.statuses import explained, status_of
from autoglm.local.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Timing:
    """Pauses of the runtime, in seconds."""

    settle: float = 0.5
    """Between removing a replica from the gateway's endpoints and SIGTERM."""
    kill_margin: float = 5.0
    """Between the end of the grace period, at which a process exits by itself, and SIGKILL."""


class Runtime:
    """Keeps the desired processes running until `stop`; passes progress lines to `report`."""

    def __init__(
        self,
        run_dir: Path,
        report: Callable[[str], None],
        policy: Policy | None = None,
        timing: Timing | None = None,
        gpus: Gpus = NO_GPUS,
    ) -> None:
        self.endpoints_file = run_dir / "endpoints.json"
        self.policy = policy or Policy()
        self._run_dir = run_dir
        self._report = report
        self._gpus = gpus
        self._timing = timing or Timing()
        self._desired: tuple[Workload, ...] = ()
        self._resources: tuple[AutoGLMDeployment, ...] = ()
        self._members: dict[str, Member] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._published = ""
        self._is_killed = False
        self._clock = time.monotonic

    @property
    def members(self) -> Sequence[Member]:
        return tuple(self._members.values())

    @property
    def is_ready(self) -> bool:
        """Return whether exactly the desired processes exist and are ready."""
        wanted = {w.name: (w.replicas, w.revision) for w in self._desired}
        found = dict.fromkeys(wanted, 0)
        for member in self._members.values():
            replica = member.replica
            if not member.is_ready or wanted.get(replica.workload, (0, ""))[1] != replica.revision:
                return False
            found[replica.workload] += 1
        return bool(wanted) and found == {name: count for name, (count, _) in wanted.items()}

    def now(self) -> float:
        return self._clock()

    def set_workloads(self, desired: Sequence[Workload]) -> None:
        """Set the desired workloads."""
        self._desired = tuple(desired)
        self._changed()

    def set_resources(self, resources: Iterable[AutoGLMDeployment]) -> None:
        """Set the resources that are published to the gateway."""
        self._resources = tuple(resources)
        self._changed()

    def retry(self) -> None:
        """Start failed replicas again: what they failed for may have changed."""
        for member in self.members:
            if member.is_in(State.FAILED):
                self._start_again(member)

    async def restart(self, names: Collection[str]) -> None:
        """Restart replicas, workloads or the gateway by name, one after the other."""
        for member in self.members:
            if not {member.name, member.replica.workload} & set(names):
                continue
            if member.is_in(State.EXITED, State.FAILED):
                self._start_again(member)
            elif not member.is_in(State.STOPPING):
                self._report(f"{member.name}: restarting")
                self._enter(member, State.RESTARTING)
                member.stop.set()
            await self._settled(member)

    async def _settled(self, member: Member) -> None:
        """Wait until the replica is ready, has failed once, or is gone."""
        ends = (State.READY, State.FAILED, State.STOPPING)

        def is_settled() -> bool:
            has_failed = member.is_in(State.EXITED) and member.replica.failures > 0
            return has_failed or member.is_in(*ends) or member not in self.members

        await self.until(is_settled)

    def _start_again(self, member: Member) -> None:
        member.replica = replace(member.replica, failures=0)
        self._enter(member, State.EXITED)

    async def run(self) -> None:
        """Keep the desired processes running until cancelled, then kill all process groups."""
        self._publish()
        watchdog = Watchdog()
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
                while True:
                    observed = [member.replica for member in self._members.values()]
                    next_plan = plan(self._desired, observed, self.now(), self.policy)
                    for action in next_plan.actions:
                        process = self._carry_out(action, session, watchdog)
                        if process is not None:
                            tasks.create_task(process)
                    # After actions, the next plan may have an earlier wake-up.
                    if not next_plan.actions:
                        await self._next_change(next_plan.wake_at)
        finally:
            self.kill()
            watchdog.close()

    async def stop(self) -> None:
        """Drain the gateway, then the replicas; return when all processes have ended."""
        self.set_workloads([workload for workload in self._desired if workload.process.is_routed])
        await self.until(lambda: all(m.is_routed for m in self.members))
        self.set_workloads(())
        await self.until(lambda: not self._members)

    def kill(self) -> None:
        """Kill all process groups; nothing is started any more."""
        self._is_killed = True
        self.set_workloads(())
        for member in self._members.values():
            if member.child is not None:
                member.child.kill_group()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate holds; it is evaluated after each change."""
        while not predicate():
            await self._next_change(None)

    def _changed(self) -> None:
        self._publish()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _next_change(self, wake_at: float | None) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        timeout = None if wake_at is None else max(0.0, wake_at - self.now())
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _publish(self) -> None:
        listed = (member for member in self._members.values() if member.is_listed)
        addresses = (member.addresses for member in listed)
        statuses = {each.name: status_of(each, self.members) for each in self._resources}
        text = endpoints.listing(addresses, self._resources, statuses)
        if text != self._published:
            self._published = text
            endpoints.write(self.endpoints_file, text)

    def _carry_out(
        self, action: Action, session: aiohttp.ClientSession, watchdog: Watchdog
    ) -> Coroutine[Any, Any, None] | None:
        """Apply an action; return the coroutine of a process that is to start."""
        match action:
            case Start(workload, index):
                replica = Replica(
                    workload.name, index, workload.revision, State.STARTING, self.now()
                )
                # As Member.name, which no replica of a model has.
                name = replica.id if workload.process.is_routed else "gateway"
                files = Files(self._run_dir / f"{name}.log", self._run_dir / f"{name}.termination")
                files.log.unlink(missing_ok=True)  # of an earlier run
                member = Member(replica, workload, self._addresses(workload), files)
                self._members[replica.id] = member
                self._changed()
                return self._run_process(member, session, watchdog)
            case Restart(id):
                member = self._members[id]
                member.addresses = self._addresses(member.workload)
                member.starts += 1
                member.timeout, member.stage = None, ""
                member.was_listed = False
                member.stop = asyncio.Event()
                self._enter(member, State.STARTING)
                return self._run_process(member, session, watchdog)
            case Stop(id):
                member = self._members[id]
                self._enter(member, State.STOPPING)
                member.stop.set()
                self._report(f"{member.name}: stopping")
            case GiveUp(id):
                member = self._members[id]
                seconds = member.workload.process.stall_seconds
                message = f"no progress of its start for {seconds:g} s; log: {member.files.log}"
                member.timeout = Failure(message)
                self._enter(member, State.FAILING)
                member.stop.set()
            case Forget(id):
                self._drop(self._members[id])
        return None

    def _addresses(self, workload: Workload) -> Addresses:
        # A process binds its ports late in its start; until then they are free for others.
        taken = {member.addresses for member in self._members.values()}
        return workload.process.addresses or free_addresses(taken)

    def _drop(self, member: Member) -> None:
        del self._members[member.replica.id]
        self._changed()

    def _enter(self, member: Member, state: State) -> None:
        now = self.now()
        member.replica = replace(member.replica, state=state, since=now, progressed=now)
        member.was_listed |= member.is_listed
        self._changed()

    def _has_started(self, member: Member, is_ready: bool, details: Mapping[str, Any]) -> bool:
        """Note what a starting process says of its progress; return whether the start is over.

        A gateway for which no replica is desired would never be ready: that it listens is enough.
        """
        stage, starting = member.stage, details.get("start")
        if isinstance(starting, Mapping):
            idle = float(starting.get("idle_seconds", 0.0))
            member.replica = replace(member.replica, progressed=self.now() - idle)
            stage = str(starting.get("text", ""))
        elif reasons := details.get("reasons"):
            stage = str(reasons[0])
        if member.stage != stage:
            member.stage = stage
            self._changed()
        has_replicas = any(w.replicas for w in self._desired if w.process.is_routed)
        waits = member.is_routed or has_replicas
        return is_ready or (not waits and details.get("listening") is True)

    async def _run_process(
        self, member: Member, session: aiohttp.ClientSession, watchdog: Watchdog
    ) -> None:
        """Run one process from start to end."""
        process = self._on_gpus(member)
        try:
            child = await start(process, member.addresses, member.files)
        except OSError as error:
            self._ended(member, Failure(f"can't be started: {error}"))
            return
        grace = member.workload.process.grace_seconds + self._timing.kill_margin
        watchdog.add(child.pid, grace)
        member.child, member.pid = child, child.pid
        self._report(f"{member.name}: starting, pid {child.pid}, log {member.files.log}")
        exited = asyncio.create_task(child.wait())
        ready = asyncio.create_task(self._become_ready(member, session))
        stop = asyncio.create_task(member.stop.wait())
        try:
            await asyncio.wait((exited, ready, stop), return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not exited.done() and not stop.done():
                ready.result()
                await asyncio.wait((exited, stop), return_when=asyncio.FIRST_COMPLETED)
            if not exited.done() and member.timeout is None:
                if member.was_listed:
                    await asyncio.wait([exited], timeout=self._timing.settle)
                child.terminate()
                await asyncio.wait([exited], timeout=grace)
                if not exited.done():
                    self._report(f"{member.name}: did not end within {grace:g} s, killed")
        finally:
            for task in (exited, ready, stop):
                task.cancel()
            # Also after a clean exit, since the leader may have left processes behind.
            child.kill_group()
            await child.wait()
            watchdog.remove(child.pid)
            member.child, member.pid, member.gpus = None, None, ()
        self._ended(member, member.timeout or child.failure())

    def _on_gpus(self, member: Member) -> Process:
        """Return the member's process with the variable for its devices."""
        process = member.workload.process
        if not process.gpus or not self._gpus.ids:
            return process
        taken = [each for other in self.members if other is not member for each in other.gpus]
        member.gpus = self._gpus.place(process.gpus, taken)
        ids = ",".join(member.gpus)
        shared = ", shared with another replica" if set(member.gpus) & set(taken) else ""
        self._report(f"{member.name}: GPU {ids}{shared}")
        return replace(process, env=(*process.env, (self._gpus.variable, ids)))

    async def _become_ready(self, member: Member, session: aiohttp.ClientSession) -> None:
        """Wait until the process receives requests, unless it is stopped before."""
        started, addresses = self.now(), member.addresses
        await endpoints.wait_ready(
            session, addresses, member.pid, partial(self._has_started, member)
        )
        if not member.is_in(State.STARTING):
            return
        member.stage = ""
        if member.is_routed:
            self._enter(member, State.JOINING)
            for process in (workload.process for workload in self._desired):
                if not process.is_routed and process.addresses:
                    await endpoints.wait_routable(session, process.addresses, addresses)
            if not member.is_in(State.JOINING):
                return
        self._enter(member, State.READY)
        seconds = self.now() - started
        self._report(f"{member.name}: ready after {seconds:.1f} s, grpc {addresses.grpc}")

    def _ended(self, member: Member, failure: Failure) -> None:
        member.stage = ""
        if member.is_in(State.STOPPING) or self._is_killed:
            self._report(f"{member.name}: {'killed' if self._is_killed else 'stopped'}")
            self._drop(member)
            return
        if member.is_in(State.RESTARTING):
            self._start_again(member)
            return
        owner = (each for each in self._resources if each.name == member.replica.workload)
        failure = explained(failure, next(owner, None))
        failures = self.policy.failures_after(member.replica, self.now())
        member.last_failure = failure
        member.replica = replace(member.replica, failures=failures)
        if failure.is_final(has_fixed_addresses=member.workload.process.addresses is not None):
            self._enter(member, State.FAILED)
            until = " until the manifest changes" if member.is_routed else ""
            self._report(f"{member.name}: {failure.message} (no restart{until})")
            return
        self._enter(member, State.EXITED)
        delay = self.policy.backoff(failures)
        self._report(f"{member.name}: {failure.message} (restart in {delay:g} s)")
