"""A replica of `autoglm up` with its process, as the runtime observes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from autoglm.local.child import Child, Failure, Files
from autoglm.local.planning import Addresses, Replica, State, Workload


@dataclass(eq=False)
class Member:
    """A replica with its process."""

    replica: Replica
    workload: Workload
    addresses: Addresses
    files: Files
    pid: int | None = None
    starts: int = 1
    gpus: tuple[str, ...] = ()
    """The devices that its process has."""
    stage: str = ""
    """What its start is doing, in its own words: `download 3.1 of 16.4 GB at 45.0 MB/s`."""
    last_failure: Failure | None = None
    timeout: Failure | None = None
    """Failure to become ready in time, for which the runtime ends it."""
    was_listed: bool = False
    """It was published to the gateway since its start."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    child: Child | None = None

    @property
    def name(self) -> str:
        """Return the name in progress lines and tables."""
        return self.replica.id if self.is_routed else "gateway"

    @property
    def is_routed(self) -> bool:
        return self.workload.process.is_routed

    @property
    def is_ready(self) -> bool:
        return self.is_in(State.READY)

    def is_in(self, *states: State) -> bool:
        return self.replica.state in states

    @property
    def is_listed(self) -> bool:
        """Return whether it is published to the gateway."""
        return self.is_in(State.JOINING, State.READY) and self.is_routed


@dataclass(frozen=True, slots=True)
class MemberView:
    """A replica or the gateway, for tables and commands."""

    name: str
    model: str
    """Name of the resource; empty for the gateway."""
    replica: int
    pid: int | None
    grpc: str
    http: str
    metrics: str
    state: State
    stage: str
    restarts: int
    age_seconds: float
    """Time since the state began."""
    log: str
    last_failure: str
    exit_code: int | None
    """Exit code of the last failure."""


def views(members: Iterable[Member], now: float) -> list[MemberView]:
    """Return the members, the gateway first."""
    return [_view(each, now) for each in sorted(members, key=lambda each: each.replica.id)]


def _view(member: Member, now: float) -> MemberView:
    failure = member.last_failure
    return MemberView(
        name=member.name,
        model=member.replica.workload if member.is_routed else "",
        replica=member.replica.index,
        pid=member.pid,
        grpc=member.addresses.grpc,
        http=member.addresses.http,
        metrics=member.addresses.metrics,
        state=member.replica.state,
        stage=member.stage,
        restarts=member.starts - 1,
        age_seconds=round(now - member.replica.since, 1),
        log=str(member.files.log),
        last_failure=failure.message if failure else "",
        exit_code=failure.exit_code if failure else None,
    )
