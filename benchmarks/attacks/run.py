"""Bounded attacks on a gateway that this benchmark started, beside a well-behaved client.

Two echo pods behind a gateway of each data plane, with API keys. For each kind the client sends 20
requests a second: alone, under the attack, and after it. The attacker is a process of its own,
bounded in count and in time, and has no credential unless the kind says so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import psutil
from tests.support import processes
from tests.support.processes import Process

from autoglm.gateway.identity.keys import new_key
from benchmarks import load
from benchmarks.attacks.attacker import Order, Seen
from benchmarks.attacks.beside import SENDS
from benchmarks.attacks.kinds import KINDS, Kind
from benchmarks.attacks.rows import COLUMNS, FAILED, Memory, Result, row
from benchmarks.neighbour import Neighbour, Outcome
from benchmarks.report import Report, machine_load

PLANES = ("embedded", "envoy")
SECONDS = 5.0
_PERIOD = 0.05
_SAMPLE_SECONDS = 0.05
_GRACE_SECONDS = 15.0
_WIDTH = 240
# Of pods, for responses that are longer than what sockets and windows hold.
ROOM = ("--max-model-len", "200000", "--echo-kv-blocks", "100000")
# Bounds that a few hundred connections and streams reach.
SMALL = ("--max-inflight", "100", "--max-connections", "256", "--slow-reader-seconds", "5")


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys of two tenants, and the file that has both."""

    neighbour: str
    attacker: str
    file: Path


def run(
    directory: Path,
    *,
    quick: bool = False,
    kinds: Sequence[str] = (),
    planes: Sequence[str] = PLANES,
    seconds: float = SECONDS,
) -> Report:
    """Attack each plane with each kind. Exits with 1 where others' requests failed."""
    chosen = [kind for kind in KINDS if not kinds or kind.name in kinds]
    seconds = min(seconds, 2.0) if quick else seconds
    title = f"Attacks of {seconds:g} s beside a client of {1 / _PERIOD:g} requests/s"
    report = Report("attacks", title, COLUMNS, notes=[machine_load()], width=_WIDTH)
    with tempfile.TemporaryDirectory() as made:
        logs = Path(made)
        keys = keys_in(logs)
        pods = [processes.echo_pod(logs, f"echo-{number}", *ROOM) for number in range(2)]
        with processes.running(*pods):
            for plane in planes:
                for result in _attacked(logs, pods, keys, plane, chosen, seconds):
                    report.rows.append(row(result))
    report.notes.append(machine_load())
    report.publish(directory)
    if failed := [f"{r['kind']} ({r['plane']})" for r in report.rows if r["verdict"] == FAILED]:
        print(f"others' requests failed under: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)
    return report


def _attacked(
    logs: Path,
    pods: Sequence[Process],
    keys: Keys,
    plane: str,
    kinds: Sequence[Kind],
    seconds: float,
) -> Iterator[Result]:
    """Yield a result a kind, all of one gateway; of a new one where an attack ended it."""
    arguments = ("--data-plane", plane, "--api-keys-file", str(keys.file), *SMALL)
    left = list(kinds)
    while left:
        gateway = processes.gateway(logs, pods, *arguments)
        with processes.running(gateway):
            processes.eventually(partial(_has_endpoints, gateway, len(pods)), 60)
            _check_neighbours(gateway, keys)
            while left and gateway.child and gateway.child.poll() is None:
                kind = left.pop(0)
                print(f"{plane} {kind.name} ...", file=sys.stderr, flush=True)
                yield result_of(gateway, keys, plane, kind, seconds)


def _has_endpoints(gateway: Process, count: int) -> bool:
    return gateway.ready_endpoints() == count


def _check_neighbours(gateway: Process, keys: Keys) -> None:
    """Raise RuntimeError where the client's requests fail without any attack."""
    for wire, sending in SENDS.items():
        with sending(keys.neighbour) as send:
            outcome = Outcome(0.0, send(gateway))
        if outcome.is_failed:
            raise RuntimeError(f"no attack yet, and {wire} fails: {outcome.status}")


def result_of(gateway: Process, keys: Keys, plane: str, kind: Kind, seconds: float) -> Result:
    """Attack for so many seconds; the client is observed as long before and after it."""
    with SENDS[kind.wire](keys.neighbour) as send:
        return _observed(Neighbour(send, _PERIOD), gateway, keys, plane, kind, seconds)


def _observed(
    neighbour: Neighbour, gateway: Process, keys: Keys, plane: str, kind: Kind, seconds: float
) -> Result:
    address = gateway.grpc_address if kind.wire == "gRPC" else gateway.http_address
    host, port = address.split(":")
    order = Order(kind.name, host, int(port), seconds, keys.attacker)
    quiet = _alone(neighbour, gateway, seconds)
    before = _megabytes(gateway.pid)
    with _attacker() as attacker, _peak(gateway.pid) as peak, neighbour.at(gateway) as attacked:
        seen = _seen(attacker, order)
    after = _alone(neighbour, gateway, seconds)
    memory = Memory(before, max(peak, default=before), _megabytes(gateway.pid))
    has_ended = gateway.child is None or gateway.child.poll() is not None
    return Result(kind, plane, quiet, attacked, after, seen, memory, has_ended)


def _alone(neighbour: Neighbour, gateway: Process, seconds: float) -> list[Outcome]:
    with neighbour.at(gateway) as outcomes:
        time.sleep(seconds)
    return outcomes


@contextmanager
def _attacker() -> Iterator[subprocess.Popen[bytes]]:
    """Start the attacker, and yield it when it can begin."""
    command = [sys.executable, "-m", "benchmarks.attacks.attacker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=load.ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child
        finally:
            child.kill()


def _seen(attacker: subprocess.Popen[bytes], order: Order) -> Seen:
    """Attack. Raises RuntimeError with the attacker's error, TimeoutExpired after its time."""
    timeout = order.seconds + _GRACE_SECONDS
    found, errors = attacker.communicate(msgspec.json.encode(order), timeout)
    if attacker.returncode:
        raise RuntimeError(errors.decode(errors="replace"))
    return msgspec.json.decode(found, type=Seen)


@contextmanager
def _peak(pid: int) -> Iterator[list[float]]:
    """Yield megabytes, sampled until the context ends."""
    found, ended = list[float](), threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            found.append(_megabytes(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield found
    finally:
        ended.set()
        sampler.join()


def _megabytes(pid: int) -> float:
    """Return the memory of a process and its children; 0 when it has ended."""
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in family)) / 1e6
    return 0.0


def keys_in(directory: Path) -> Keys:
    """Make the keys of the client and the attacker, and their file."""
    (mine, first), (theirs, second) = new_key("neighbour"), new_key("attacker")
    file = directory / "keys.json"
    file.write_bytes(msgspec.json.encode({"keys": [first, second]}))
    return Keys(mine, theirs, file)
