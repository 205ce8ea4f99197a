import importlib
import subprocess
import sys
from typing import Any

import pytest

from autoglm import cli
from autoglm.cli import COMMANDS
from autoglm.common.packages import install_command


def test_top_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys, autoglm.cli; code = autoglm.cli.run(['--help']);"
        "heavy = {'pydantic', 'aiohttp', 'vllm', 'torch', 'rich'} & sys.modules.keys();"
        "sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_examples(autoglm: Any, name: str) -> None:
    result = autoglm(name, "--help")
    assert result.code == 0
    assert f"\nExamples:\n  autoglm {name}" in result.out.replace(
        "\n  Examples:\n  ", "\nExamples:\n"
    )


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["chat", "--nonsense"],
        ["models", "--timeout", "0"],
        ["models", "--output", "x"],
    ],
)
def test_wrong_usage_exits_2(autoglm: Any, args: list[str]) -> None:
    result = autoglm(*args)
    assert (result.code, result.out) == (2, "") and result.err


def test_a_missing_package_names_the_extra(autoglm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="pydantic_settings.main")

    monkeypatch.setattr(importlib, "import_module", fail)
    result = autoglm("gateway", "--help")
    assert result.code == 1
    assert install_command("gateway") in result.err


def test_a_bug_in_a_command_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'autoglm.nothing'", name="autoglm.nothing")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.run(["gateway", "--help"])
