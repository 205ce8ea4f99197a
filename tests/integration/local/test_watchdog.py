"""The watchdog ends the processes that a killed parent leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autoglm.local.watchdog import Watchdog, follow

# Starts a watched child that holds the pipe open, and then hangs until it is killed.
PARENT = """
import subprocess, sys, signal
from autoglm.local.watchdog import Watchdog
held = int(sys.argv[1])
code = "import signal; " + sys.argv[2] + "; print('up', flush=True); signal.pause()"
child = subprocess.Popen(
    [sys.executable, "-I", "-S", "-c", code],
    pass_fds=[held], start_new_session=True, stdout=subprocess.PIPE,
)
child.stdout.readline()
Watchdog().add(child.pid, 0.2)
print("watching", flush=True)
signal.pause()
"""
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.parametrize("child", ["pass", IGNORE], ids=["willing", "stubborn"])
def test_a_child_does_not_outlive_a_killed_parent(child: str) -> None:
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", PARENT, str(theirs), child]
    with subprocess.Popen(command, pass_fds=[theirs], stdout=subprocess.PIPE) as parent:
        os.close(theirs)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"watching\n"
        parent.kill()

    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read() == b""  # ends when the last holder of the pipe does


def test_a_removed_process_is_not_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        watchdog = Watchdog()
        watchdog.add(child.pid, 0.0)
        watchdog.remove(child.pid)
        watchdog.close()
        child.communicate(b"\n")

    assert child.returncode == 0


def test_what_is_left_is_what_was_added_and_not_removed() -> None:
    assert follow(["+1 30.0\n", "+2 5\n", "-1\n", "+3 1\n"]) == {2: 5.0, 3: 1.0}
