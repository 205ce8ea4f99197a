"""A network namespace of its own for what listens on default ports and has to need no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

ISOLATED = "AUTOGLM_PAGES_ISOLATED"
"""Variable of a process that runs in one."""


def isolation() -> list[str]:
    """What runs a command in a network namespace; empty where it is done, or not possible."""
    if os.environ.get(ISOLATED) or shutil.which("ip") is None:
        return []
    own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", "--net", *own_user]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("pages: no network namespaces here; the pages' ports must be free", file=sys.stderr)
        return []
    return [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
