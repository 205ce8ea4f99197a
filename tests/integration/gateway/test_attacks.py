"""A short case of each attack of `benchmarks attacks`: no request of another client fails.

`make soak` runs the whole of them. Rows that grpcio's own server decides are in
`benchmarks.attacks.rows.UPSTREAM`, with their issues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from benchmarks.attacks.kinds import KINDS, Kind
from benchmarks.attacks.rows import FAILED, saw, verdict
from benchmarks.attacks.run import ROOM, SMALL, Keys, keys_in, result_of
from tests.support import processes
from tests.support.processes import Process

pytestmark = pytest.mark.timeout(120)
SECONDS = 0.4
# Streams that are not read would last for the whole of a longer one.
GRACE = ("--shutdown-grace-seconds", "1")


@dataclass
class Stage:
    """A gateway of one data plane with two pods; started again where an attack has ended it."""

    plane: str
    keys: Keys
    gateway: Process

    def attacked_gateway(self) -> Process:
        gateway = self.gateway
        if gateway.child is None or gateway.child.poll() is not None:
            gateway.start().wait_ready()
        processes.eventually(lambda: gateway.ready_endpoints() == 2, 60)
        return gateway


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, plane: str) -> Iterator[Stage]:
    logs = tmp_path_factory.mktemp("attacks")
    keys = keys_in(logs)
    pods = [processes.echo_pod(logs, f"echo-{number}", *ROOM, *GRACE) for number in range(2)]
    arguments = ("--data-plane", plane, "--api-keys-file", str(keys.file), *SMALL, *GRACE)
    with processes.running(*pods):
        gateway = processes.gateway(logs, pods, *arguments)
        with processes.running(gateway):
            yield Stage(plane, keys, gateway)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_attack_costs_no_other_client_a_request(stage: Stage, kind: Kind) -> None:
    result = result_of(stage.attacked_gateway(), stage.keys, stage.plane, kind, SECONDS)
    failed = [one.status for one in (*result.attacked, *result.after) if one.is_failed]
    assert verdict(result) != FAILED, (failed, saw(result.seen))
    assert result.attacked and result.after
