"""A gateway that samples its own event loop every millisecond. Run by `benchmarks.bounds`.

On SIGUSR2 it writes the longest stops since the last one to the file AUTOGLM_STOPS_FILE, as JSON:
`wall`, in which others' work on the machine counts, and `cpu`, the process's own time, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from autoglm.cli import main
from autoglm.common.http.admin import LoopLag

PERIOD_SECONDS = 0.001


async def beat(self: LoopLag) -> None:
    worst = {"wall": 0.0, "cpu": 0.0}

    def dump() -> None:
        path = Path(os.environ["AUTOGLM_STOPS_FILE"])
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps(worst | {"process": time.process_time()}))
        scratch.rename(path)
        worst.update(wall=0.0, cpu=0.0)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, dump)
    while True:
        due, cpu = time.monotonic() + PERIOD_SECONDS, time.process_time()
        await asyncio.sleep(PERIOD_SECONDS)
        self.last_beat = time.monotonic()
        worst["wall"] = max(worst["wall"], self.last_beat - due)
        worst["cpu"] = max(worst["cpu"], time.process_time() - cpu)


if __name__ == "__main__":
    LoopLag.beat = beat  # type: ignore[method-assign]
    sys.exit(main())
