import asyncio
import os
import signal
import subprocess
import sys

import pytest

from autoglm.common.process.lifecycle import Shutdown

_TWO_SIGNALS = """
import asyncio, sys
from autoglm.common.process.lifecycle import Shutdown
async def main():
    shutdown = Shutdown()
    shutdown.install()
    print("ready", flush=True)
    await shutdown.wait()
    print("draining", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_request_is_seen_by_all_who_wait() -> None:
    shutdown = Shutdown()
    waiting = [asyncio.create_task(shutdown.wait()) for _ in range(2)]
    shutdown.request()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_the_second_forces(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TWO_SIGNALS], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, number)
        assert child.stdout.readline() == "draining\n"
        os.kill(child.pid, number)
        assert child.wait(10) == 128 + number
