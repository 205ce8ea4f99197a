import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _autoglm_completion autoglm"),
        ("zsh", "#compdef autoglm"),
        ("fish", "complete --no-files --command autoglm"),
    ],
)
def test_each_shell_gets_its_script(autoglm: Any, shell: str, line: str) -> None:
    result = autoglm("completion", shell)
    assert (result.code, result.err) == (0, "")
    assert line in result.out


def test_the_script_completes_commands() -> None:
    words = {"COMP_WORDS": "autoglm mod", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "autoglm"],
        env={"_AUTOGLM_COMPLETE": "bash_complete", **words},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "plain,models\n"
