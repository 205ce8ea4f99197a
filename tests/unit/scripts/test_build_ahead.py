"""What the later rings need is built beside the first ones, and never in their way."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.kube.images import ARCHIVES
from tests.support.kube.product import CPU_IMAGE, IMAGE
from tests.support.processes import eventually, is_alive

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/build_ahead"
DONE = "#!/bin/sh\nexit 0\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose scripts build nothing."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    for name in set(re.findall(r"step scripts/(\w+)", SCRIPT.read_text())):
        write(scripts / name, DONE)
    write(scripts / "at_lowest_priority", '#!/bin/sh\nexec "$@"\n')
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed").touch()
    return tmp_path


def write(script: Path, text: str) -> None:
    script.write_text(text)
    script.chmod(0o755)


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts/build_ahead", *command], capture_output=True, text=True, check=False
    )


def test_the_result_is_the_commands(checkout: Path) -> None:
    done = run(checkout, "sh", "-c", "echo tested; exit 7")
    assert (done.returncode, done.stdout) == (7, "tested\n")


def test_a_build_that_fails_is_logged_and_stops_neither_command_nor_the_next_build(
    checkout: Path,
) -> None:
    write(checkout / "scripts/go_tools", "#!/bin/sh\necho no network\nexit 1\n")
    write(checkout / "scripts/kube_tools", "#!/bin/sh\ntouch reached\nexit 1\n")
    done = run(checkout, "sh", "-c", "until [ -e reached ]; do sleep 0.05; done")
    assert done.returncode == 0, done.stderr
    assert "no network\n== failed" in (checkout / "build/ahead.log").read_text()


def test_the_build_ends_with_the_command(checkout: Path) -> None:
    write(checkout / "scripts/go_tools", "#!/bin/sh\necho $$ >started\nexec sleep 60\n")
    done = run(checkout, "sh", "-c", "until [ -s started ]; do sleep 0.05; done")
    assert done.returncode == 0, done.stderr
    pid = int((checkout / "started").read_text())
    eventually(lambda: not is_alive(pid), what="the build has ended")


def test_an_interrupt_ends_both(checkout: Path) -> None:
    write(checkout / "scripts/go_tools", "#!/bin/sh\necho $$ >started\nexec sleep 60\n")
    # A background job of a shell is started with interrupts ignored.
    command = ["env", "--default-signal=INT", str(checkout / "scripts/build_ahead"), "sleep", "60"]
    child = subprocess.Popen(command, start_new_session=True)
    started = checkout / "started"
    eventually(lambda: started.exists() and bool(started.read_text()), what="a build has begun")
    os.killpg(child.pid, signal.SIGINT)
    child.wait(10)
    pid = int(started.read_text())
    eventually(lambda: not is_alive(pid), what="the build has ended")


def test_a_ring_can_wait_for_the_end_of_the_build(checkout: Path) -> None:
    until = "until [ -e {} ]; do sleep 0.05; done"
    write(checkout / "scripts/go_tools", f"#!/bin/sh\ntouch started\n{until.format('resume')}\n")
    write(checkout / "scripts/kube_tools", "#!/bin/sh\ntouch built\n")
    resume = "(sleep 0.2; touch resume)"
    ring = f"{until.format('started')}; {resume} & scripts/build_ahead --wait; test -e built"
    assert run(checkout, "sh", "-c", ring).returncode == 0


def test_without_a_build_there_is_nothing_to_wait_for(checkout: Path) -> None:
    assert run(checkout, "--wait").returncode == 0


def test_images_built_ahead_are_those_that_the_ring_wants() -> None:
    text = SCRIPT.read_text().replace("\\\n", " ")
    built = re.findall(r"scripts/node_image \"(.+?)\" +(\S+) +(\S+)", text)
    version = IMAGE.partition(":")[2]
    names = {name.replace("$version", version): (file, where) for name, file, where in built}
    assert {IMAGE, CPU_IMAGE} < set(names)
    for dockerfile, archive in names.values():
        assert (ROOT / dockerfile).is_file()
        assert (ROOT / archive).parent == ARCHIVES


def test_whether_a_node_can_run_here_is_known_to_the_script() -> None:
    (code,) = re.findall(r"python -c '(.+)'", SCRIPT.read_text())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
