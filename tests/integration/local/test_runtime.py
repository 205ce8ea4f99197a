"""Processes are kept as desired: real ones, that stand in for pods."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support.processes import eventually, is_alive

from autoglm.local.child import Failure, free_addresses
from autoglm.local.gpus import NO_GPUS, Gpus
from autoglm.local.member import Member
from autoglm.local.planning import Policy, Process, State, Workload
from autoglm.local.runtime import Runtime, Timing

FAKE = str(Path(__file__).with_name("fake_process.py"))
QUICK = Policy(backoff_initial=0.01, backoff_max=0.05)


@dataclass
class Running:
    runtime: Runtime
    lines: list[str] = field(default_factory=list)

    async def until(self, fact: Callable[[], bool]) -> None:
        await self.runtime.until(fact)

    async def until_ready(self) -> None:
        await self.until(lambda: self.runtime.is_ready)

    @property
    def only(self) -> Member:
        [member] = self.runtime.members
        return member

    def endpoints(self) -> list[str]:
        listed: list[str] = json.loads(self.runtime.endpoints_file.read_text())["endpoints"]
        return listed


def fake(mode: str, replicas: int = 1, grace: float = 5.0, *, is_routed: bool = True) -> Workload:
    argv = (sys.executable, "-I", "-S", FAKE, mode)
    return Workload("m", replicas, Process(argv, grace_seconds=grace, is_routed=is_routed))


@asynccontextmanager
async def running(
    run_dir: Path, *desired: Workload, policy: Policy = QUICK, gpus: Gpus = NO_GPUS
) -> AsyncIterator[Running]:
    lines: list[str] = []
    timing = Timing(settle=0.0, kill_margin=0.1)
    run = Running(Runtime(run_dir, lines.append, policy, timing, gpus), lines)
    run.runtime.set_workloads(desired)
    task = asyncio.create_task(run.runtime.run())
    try:
        await run.until(lambda: bool(run.runtime.members))
        yield run
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_ready_replicas_are_listed_for_the_gateway(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready", replicas=2)) as run:
        await run.until_ready()

        addresses = {f"grpc://{member.addresses.grpc}" for member in run.runtime.members}
        assert set(run.endpoints()) == addresses
        assert len(addresses) == 2


def variable_of(pid: int | None, name: str) -> str:
    """A variable of a running process's environment."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(each.partition("=")[::2] for each in variables)[name]


async def test_each_replica_has_gpus_of_its_own_and_keeps_them_over_a_restart(
    tmp_path: Path,
) -> None:
    two = fake("ready", replicas=2)
    workload = replace(two, process=replace(two.process, gpus=2))
    gpus = Gpus(("0", "1", "2", "3"), ("A",) * 4)
    async with running(tmp_path, workload, gpus=gpus) as run:
        await run.until_ready()
        first, second = run.runtime.members
        assert {variable_of(each.pid, "CUDA_VISIBLE_DEVICES") for each in (first, second)} == {
            "0,1",
            "2,3",
        }
        assert f"m-0: GPU {','.join(first.gpus)}" in run.lines

        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await run.until(lambda: first.starts == 2)
        await run.until_ready()

        assert not set(first.gpus) & set(second.gpus)
        assert variable_of(first.pid, "CUDA_VISIBLE_DEVICES") == ",".join(first.gpus)


async def test_a_replica_is_unpublished_before_it_is_terminated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINTS_FILE", str(tmp_path / "endpoints.json"))
    async with running(tmp_path, fake("ready")) as run:
        await run.until_ready()
        await run.runtime.stop()

    assert 'SIGTERM with {"endpoints": [], ' in (tmp_path / "m-0.log").read_text()


async def test_a_killed_replica_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready")) as run:
        await run.until_ready()
        pid, addresses = run.only.pid, run.only.addresses
        assert pid is not None

        os.kill(pid, signal.SIGKILL)
        # Not until it has exited: that state may have passed when the test next runs.
        await run.until(lambda: run.only.starts == 2)
        assert run.endpoints() == []
        await run.until_ready()

        assert run.only.addresses != addresses
        assert run.endpoints() == [f"grpc://{run.only.addresses.grpc}"]
        assert run.only.last_failure is not None
        assert run.only.last_failure.message.startswith("killed by SIGKILL")


async def test_the_process_itself_says_why_it_failed(tmp_path: Path) -> None:
    async with running(tmp_path, fake("broken")) as run:
        await run.until(lambda: run.only.is_in(State.FAILED))

        assert run.only.last_failure == Failure("no such model: x", 66)
        assert run.lines[-1] == "m-0: no such model: x (no restart until the manifest changes)"
        assert run.only.starts == 1


async def test_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    missing = Workload("m", 1, Process((str(tmp_path / "nothing"),)))
    async with running(tmp_path, missing) as run:
        await run.until(lambda: run.only.last_failure is not None)

        assert run.only.last_failure is not None
        assert run.only.last_failure.message.startswith("can't be started: ")


async def test_a_replica_that_is_never_ready_is_started_again(tmp_path: Path) -> None:
    hasty = Policy(backoff_initial=0.01, stall_margin=0.0)
    never = fake("never")
    workload = replace(never, process=replace(never.process, stall_seconds=0.05))
    async with running(tmp_path, workload, policy=hasty) as run:
        await run.until(lambda: run.only.starts >= 2)

        assert run.only.last_failure == Failure(
            f"no progress of its start for 0.05 s; log: {tmp_path / 'm-0.log'}"
        )


async def test_a_process_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    async with running(tmp_path, fake("stubborn", grace=0.1)) as run:
        await run.until_ready()
        await run.runtime.stop()

    assert run.lines[-2:] == ["m-0: did not end within 0.2 s, killed", "m-0: stopped"]


async def test_nothing_that_a_replica_started_outlives_it(tmp_path: Path) -> None:
    async with running(tmp_path, fake("family")) as run:
        await run.until_ready()
        await run.runtime.stop()

    log = (tmp_path / "m-0.log").read_text().splitlines()
    [child] = [int(line.split()[1]) for line in log if line.startswith("child ")]
    # It was sent SIGKILL, which it gets when it next runs.
    await asyncio.to_thread(eventually, lambda: not is_alive(child))


async def test_cancelling_ends_every_process(tmp_path: Path) -> None:
    async with running(tmp_path, fake("stubborn", replicas=2)) as run:
        await run.until_ready()
        pids = [member.pid for member in run.runtime.members]

    assert [is_alive(pid) for pid in pids if pid is not None] == [False, False]


async def test_a_change_starts_the_new_before_it_stops_the_old(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready")) as run:
        await run.until_ready()
        run.lines.clear()

        run.runtime.set_workloads([fake("family")])
        await run.until_ready()

    kinds = [line.split(",")[0].split(" after")[0] for line in run.lines]
    assert kinds == ["m-1: starting", "m-1: ready", "m-0: stopping", "m-0: stopped"]


async def test_a_new_version_that_fails_leaves_the_old_one_alone(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready")) as run:
        await run.until_ready()
        served = run.endpoints()

        run.runtime.set_workloads([fake("broken")])
        await run.until(lambda: any(m.is_in(State.FAILED) for m in run.runtime.members))

        assert run.endpoints() == served


async def test_a_replica_counts_only_once_the_gateway_sends_it_requests(tmp_path: Path) -> None:
    absent = replace(fake("never", is_routed=False).process, addresses=free_addresses())
    async with running(tmp_path, fake("ready"), Workload("_gateway", 1, absent)) as run:
        [replica] = [m for m in run.runtime.members if m.is_routed]
        await run.until(lambda: replica.replica.state is State.JOINING)

        assert run.endpoints() == [f"grpc://{replica.addresses.grpc}"]
        assert not run.runtime.is_ready


async def test_the_gateway_drains_before_what_is_behind_it(tmp_path: Path) -> None:
    gateway = Workload("_gateway", 1, fake("ready", is_routed=False).process)
    async with running(tmp_path, gateway, fake("ready")) as run:
        await run.until_ready()
        run.lines.clear()
        await run.runtime.stop()

    assert run.lines == ["gateway: stopping", "gateway: stopped", "m-0: stopping", "m-0: stopped"]


async def test_another_process_at_its_addresses_is_not_taken_for_the_own_child(
    tmp_path: Path,
) -> None:
    addresses = free_addresses()
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        FAKE,
        "ready",
        *addresses.flags(),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert await other.stdout.readline() == b"mode ready\n"
        process = replace(fake("never").process, addresses=addresses, stall_seconds=0.5)
        patient = Policy(stall_margin=0.0)
        async with running(tmp_path, Workload("m", 1, process), policy=patient) as run:
            await run.until(lambda: run.only.last_failure is not None)

            assert not any("ready" in line for line in run.lines)
    finally:
        other.kill()
        await other.wait()


async def test_a_replica_is_restarted_in_its_place(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready", replicas=2)) as run:
        await run.until_ready()
        pids = {member.name: member.pid for member in run.runtime.members}
        await run.runtime.restart(["m-1"])

        after = {member.name: member.pid for member in run.runtime.members}
        assert after.keys() == pids.keys()
        assert after["m-0"] == pids["m-0"]
        assert after["m-1"] not in (None, pids["m-1"])
        assert run.runtime.is_ready


async def test_replicas_of_a_workload_are_restarted_one_after_the_other(tmp_path: Path) -> None:
    async with running(tmp_path, fake("ready", replicas=2)) as run:
        await run.until_ready()
        run.lines.clear()
        await run.runtime.restart(["m"])

    kinds = [line.split(",")[0].split(" after")[0] for line in run.lines]
    assert kinds == [
        "m-0: restarting",
        "m-0: starting",
        "m-0: ready",
        "m-1: restarting",
        "m-1: starting",
        "m-1: ready",
    ]


async def test_a_failed_replica_is_started_again_by_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, fake("broken")) as run:
        await run.until(lambda: run.only.is_in(State.FAILED))
        await run.runtime.restart(["m"])

        assert run.only.starts == 2
        assert run.only.is_in(State.FAILED)
