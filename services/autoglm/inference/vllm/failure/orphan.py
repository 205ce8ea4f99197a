"""Ends an engine process whose pod was killed; vLLM's own would hold its memory forever.

vLLM loads `end_with_pod` as a plugin (`vllm.general_plugins` in pyproject.toml) in each of its
processes. It ends one only, the direct child of a pod, which names itself in the environment; in
all of them it installs `eager` and `engine_patches`.
"""

from __future__ import annotations

import os
import select
import threading

from autoglm.inference.vllm import eager
from autoglm.inference.vllm.replay import engine_patches

POD_VARIABLE = "AUTOGLM_POD_PID"


def announce_pod() -> None:
    """Called by the pod, before it starts the engine."""
    os.environ[POD_VARIABLE] = str(os.getpid())


def end_with_pod() -> None:
    """Called by vLLM."""
    eager.install()
    engine_patches.install()
    pod = os.getppid()
    if os.environ.get(POD_VARIABLE) == str(pod) and hasattr(os, "pidfd_open"):
        threading.Thread(target=_wait, args=(os.pidfd_open(pod),), daemon=True).start()


def _wait(pod: int) -> None:
    select.select([pod], [], [])
    # The workers notice that this process is gone, and end as well.
    os._exit(1)
