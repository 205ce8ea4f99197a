import asyncio

import pytest

from autoglm.common import errors
from autoglm.inference.pod import Pod
from autoglm.simulator import EchoSettings, start


async def test_there_is_no_engine_while_it_loads() -> None:
    with pytest.raises(errors.NoReadyEndpoint, match="loading"):
        Pod().engine()


async def test_a_draining_pod_is_unready_and_still_serves() -> None:
    pod, engine = Pod(), await start(EchoSettings(aliases=("other",)))
    pod.ready(engine)
    assert (pod.is_ready, pod.is_draining, pod.model_names) == (True, False, ["echo", "other"])
    pod.drain()
    assert (pod.is_ready, pod.is_draining) == (False, True)
    with pod.request():
        assert pod.engine() is engine
    await engine.close()


async def test_a_closing_pod_sends_requests_elsewhere() -> None:
    pod = Pod()
    pod.close()
    with pytest.raises(errors.ShuttingDown), pod.request():
        pass
    assert pod.in_flight == 0


async def test_a_dead_engine_is_named_with_its_cause() -> None:
    pod = Pod()
    pod.die("out of memory")
    with pytest.raises(errors.EngineDead, match="out of memory"):
        pod.engine()


async def test_idle_waits_for_the_last_request() -> None:
    pod = Pod()
    with pod.request():
        with pod.request():
            pass
        waiting = asyncio.create_task(pod.idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_every_change_of_phase_is_announced() -> None:
    pod = Pod()
    for change in (pod.drain, pod.close):
        changed = pod.changed
        change()
        assert changed.is_set()
        assert not pod.changed.is_set()
