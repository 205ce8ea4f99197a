"""A gateway or pod that samples its own event loop every millisecond. Run by `benchmarks.bounds`.

On SIGUSR2 it writes the longest stops since the last one to the file AUTOGLM_STOPS_FILE, as JSON in
seconds: `wall`, `cpu` of the whole process, and `stop`, the longest by the smaller of the two. So
neither the work of others on the machine counts, nor that of threads beside the loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from autoglm.cli import main
from autoglm.common.admin_server import LoopLag

PERIOD_SECONDS = 0.001


async def beat(self: LoopLag) -> None:
    worst = {"wall": 0.0, "cpu": 0.0, "stop": 0.0}

    def dump() -> None:
        path = Path(os.environ["AUTOGLM_STOPS_FILE"])
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps(worst | {"process": time.process_time()}))
        scratch.rename(path)
        worst.update(dict.fromkeys(worst, 0.0))

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, dump)
    while True:
        due, began = time.monotonic() + PERIOD_SECONDS, time.process_time()
        await asyncio.sleep(PERIOD_SECONDS)
        self.last_beat = time.monotonic()
        wall, cpu = self.last_beat - due, time.process_time() - began
        for name, seconds in (("wall", wall), ("cpu", cpu), ("stop", min(wall, cpu))):
            worst[name] = max(worst[name], seconds)


if __name__ == "__main__":
    LoopLag.beat = beat  # type: ignore[method-assign]
    main()
