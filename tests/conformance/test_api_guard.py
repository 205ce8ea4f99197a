"""scripts/check_protos catches what would break a client, and lets pass what would not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.prerequisites import go_tool

ROOT = Path(__file__).parents[2]
GENERATE = "protos/autoglm/v1/generate.proto"
# The first run builds buf.
pytestmark = pytest.mark.timeout(1200)

Check = Callable[[str, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def buf() -> Path:
    return go_tool("buf")


@pytest.fixture
def check(buf: Path, tmp_path: Path) -> Check:
    """Replaces a text of generate.proto in a repository of its own and checks against HEAD."""
    (tmp_path / "build/bin").mkdir(parents=True)
    (tmp_path / "build/bin/buf").symlink_to(buf)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "-q"), ("add", "protos"), ("commit", "-q", "-m", "Start")):
        subprocess.run([*git, *command], check=True)

    def check(old: str, new: str) -> subprocess.CompletedProcess[str]:
        proto = tmp_path / GENERATE
        text = proto.read_text()
        assert text.count(old) == 1
        proto.write_text(text.replace(old, new))
        return subprocess.run(
            [tmp_path / "scripts/check_protos", "HEAD"], capture_output=True, text=True, check=False
        )

    return check


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optional float top_p = 6;", "optional float top_p = 60;"),
        ("optional float top_p = 6;", "optional double top_p = 6;"),
        ("optional float top_p = 6;", "optional float nucleus = 6;"),
        ("optional float top_p = 6;", "float top_p = 6;"),
    ],
    ids=["renumbered", "retyped", "renamed", "presence lost"],
)
def test_breaking_change_is_caught(check: Check, old: str, new: str) -> None:
    done = check(old, new)
    assert done.returncode == 1
    assert "would break" in done.stderr


def test_field_without_a_comment_is_caught(check: Check) -> None:
    done = check("message TokenIds {", "message TokenIds {\n  uint32 count = 2;")
    assert done.returncode == 1
    assert "comment" in done.stdout + done.stderr


def test_new_field_passes(check: Check) -> None:
    done = check("message TokenIds {", "message TokenIds {\n  // How many.\n  uint32 count = 2;")
    assert done.returncode == 0, done.stdout + done.stderr
