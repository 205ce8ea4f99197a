"""How many connections fit in a limit of open files."""

import resource
import subprocess
import sys

import pytest

from autoglm.common.process.open_files import connections_within


@pytest.mark.parametrize(
    ("limit", "wanted", "fitting"),
    [(1024 * 1024, 10_000, 10_000), (32_768, 10_000, 10_000), (4096, 10_000, 1536), (256, 100, 96)],
)
def test_connections_leave_room_for_pods_and_files(limit: int, wanted: int, fitting: int) -> None:
    assert connections_within(limit, wanted, ports=2) == fitting
    assert 2 * fitting <= limit - limit // 4


def test_something_is_served_whatever_the_limit() -> None:
    assert connections_within(16, 10_000, ports=2) == 1


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource; from autoglm.common.process.open_files import raise_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    said = subprocess.run((sys.executable, "-c", program), capture_output=True, check=True)
    assert said.stdout.split() == [b"512"] * 3
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 512
