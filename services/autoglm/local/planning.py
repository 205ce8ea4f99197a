"""Plans the processes of an `autoglm up`: which to start, restart or stop, or how long to wait.

A pure function of desired and observed state. Replicas of a new revision start one at a time, and
each replaces an old one once it receives requests; a replica that exits restarts after a back-off;
one whose start makes no progress is ended. `runtime` applies the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoglm.api.spec.operations import Startup

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses at which a process listens, as HOST:PORT."""

    grpc: str = f"{LOOPBACK}:50051"
    http: str = f"{LOOPBACK}:8080"
    metrics: str = f"{LOOPBACK}:9090"

    def flags(self) -> tuple[str, ...]:
        return (
            f"--grpc-address={self.grpc}",
            f"--http-address={self.http}",
            f"--metrics-address={self.metrics}",
        )


@dataclass(frozen=True, slots=True)
class Process:
    """Command, environment and grace period of a replica."""

    argv: tuple[str, ...]
    """Program and flags, without addresses."""
    env: tuple[tuple[str, str], ...] = ()
    """Variables on top of the parent's environment."""
    addresses: Addresses | None = None
    """Fixed addresses; None: free ports at each start."""
    grace_seconds: float = 30.0
    """Time for running requests to complete once the process is terminated, in seconds."""
    stall_seconds: float = Startup().stall_seconds
    """Longest time without progress of its start, in seconds."""
    gpus: int = 0
    """GPUs of a replica; 0 leaves the choice to the process."""
    is_routed: bool = True
    """The gateway sends requests to it. False for the gateway itself, which is ready only
    once a replica is, and may start without a time limit."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of equal processes to run."""

    name: str
    replicas: int
    process: Process

    @property
    def revision(self) -> str:
        """Return a hash of the process."""
        return hashlib.sha256(repr(self.process).encode()).hexdigest()[:10]


class State(StrEnum):
    STARTING = "starting"
    JOINING = "joining"
    """Ready and published to the gateway, but not in its pool yet."""
    READY = "ready"
    """Receives requests."""
    STOPPING = "stopping"
    RESTARTING = "restarting"
    """Stopping, and started again at once."""
    FAILING = "failing"
    """Being killed because its start made no progress."""
    EXITED = "exited"
    """Waits for its restart."""
    FAILED = "failed"
    """Exited for a reason that a restart does not help; waits for a change of the manifest."""


_WITHOUT_PROCESS = frozenset((State.EXITED, State.FAILED))


@dataclass(frozen=True, slots=True)
class Replica:
    """Observed state of one process."""

    workload: str
    index: int
    revision: str
    state: State
    since: float
    """Time at which the state began."""
    failures: int = 0
    """Consecutive failures."""
    progressed: float = 0.0
    """Time at which its start last made progress, at the earliest when the state began."""

    @property
    def id(self) -> str:
        return f"{self.workload}-{self.index}"


@dataclass(frozen=True, slots=True)
class Policy:
    """Back-off of restarts, in seconds."""

    backoff_initial: float = 1.0
    backoff_max: float = 30.0
    backoff_reset: float = 60.0
    """Time in the ready state that resets the count of failures."""
    stall_margin: float = 15.0
    """On top of a process's own limit, with which it ends itself and says why."""

    def backoff(self, failures: int) -> float:
        if failures == 0:
            return 0.0
        # The exponent is bounded, since a float would overflow after many failures.
        return float(min(self.backoff_max, self.backoff_initial * 2 ** min(failures - 1, 30)))

    def failures_after(self, replica: Replica, now: float) -> int:
        """Return the consecutive failures if the replica exits now."""
        was_good = replica.state is State.READY and now - replica.since >= self.backoff_reset
        return 1 if was_good else replica.failures + 1


@dataclass(frozen=True, slots=True)
class Start:
    workload: Workload
    index: int


@dataclass(frozen=True, slots=True)
class Restart:
    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain and end a replica that is no longer desired."""

    id: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a replica whose start makes no progress; it will be restarted."""

    id: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop an exited replica that is no longer desired."""

    id: str


Action = Start | Restart | Stop | GiveUp | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    """Time of the next plan if nothing changes."""


def plan(
    desired: Sequence[Workload], observed: Sequence[Replica], now: float, policy: Policy
) -> Plan:
    """Return the next actions from the observed to the desired state."""
    actions: list[Action] = []
    wakes: list[float] = []
    for workload in desired:
        mine = [replica for replica in observed if replica.workload == workload.name]
        kept, ended = _divide(workload, mine)
        actions += map(_end, ended)
        for replica in kept:
            action, wake = _keep_up(workload, replica, now, policy)
            actions += [action] if action else []
            wakes += [wake] if wake is not None else []
        actions += [Start(workload, index) for index in _new_indices(workload, mine, ended)]
    names = {workload.name for workload in desired}
    orphans = (r for r in observed if r.workload not in names and r.state is not State.STOPPING)
    actions += map(_end, orphans)
    return Plan(tuple(actions), min(wakes, default=None))


def _divide(workload: Workload, replicas: Iterable[Replica]) -> tuple[list[Replica], list[Replica]]:
    """Return the replicas of the desired revision to keep, and the replicas to end."""
    alive = [replica for replica in replicas if replica.state is not State.STOPPING]
    alive.sort(key=lambda replica: (replica.state is not State.READY, replica.index))
    current = [replica for replica in alive if replica.revision == workload.revision]
    old = [replica for replica in alive if replica.revision != workload.revision]
    kept, surplus = current[: workload.replicas], current[workload.replicas :]
    ready = sum(replica.state is State.READY for replica in kept)
    # Ready old replicas stand in for new ones that are not ready yet.
    standing_in = max(0, workload.replicas - ready)
    leaving = [r for i, r in enumerate(old) if r.state is not State.READY or i >= standing_in]
    return kept, surplus + leaving


def _new_indices(
    workload: Workload, replicas: Sequence[Replica], ended: Sequence[Replica]
) -> list[int]:
    staying = [r for r in replicas if r not in ended and r.state is not State.STOPPING]
    current = [replica for replica in staying if replica.revision == workload.revision]
    missing = workload.replicas - len(current)
    if len(current) < len(staying):
        # While old replicas exist, at most one more than desired, since each has a model in memory.
        gone = {replica.id for replica in ended if replica.state in _WITHOUT_PROCESS}
        present = sum(replica.id not in gone for replica in replicas)
        missing = min(missing, workload.replicas + 1 - present)
    taken = {replica.index for replica in replicas}
    free = (index for index in range(len(taken) + workload.replicas) if index not in taken)
    return [index for _, index in zip(range(missing), free, strict=False)]


def _keep_up(
    workload: Workload, replica: Replica, now: float, policy: Policy
) -> tuple[Action | None, float | None]:
    if replica.state is State.EXITED:
        due = replica.since + policy.backoff(replica.failures)
        return (Restart(replica.id), None) if now >= due else (None, due)
    if replica.state is State.STARTING and workload.process.is_routed:
        started = max(replica.since, replica.progressed)
        due = started + workload.process.stall_seconds + policy.stall_margin
        return (GiveUp(replica.id), None) if now >= due else (None, due)
    return None, None


def _end(replica: Replica) -> Action:
    return Forget(replica.id) if replica.state in _WITHOUT_PROCESS else Stop(replica.id)
