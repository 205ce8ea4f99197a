"""The command line of the figures."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from scripts.measure.cli import main


def _root(tmp_path: Path) -> str:
    file = tmp_path / "services/autoglm/a.py"
    file.parent.mkdir(parents=True)
    file.write_text('"""It answers."""\n\n\ndef _f() -> None:\n    return None\n')
    return str(tmp_path)


def test_figures_are_written_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--root", _root(tmp_path), "--json"])
    found = json.loads(result.output)
    assert (found["files"], found["lines"], found["code_lines"]) == (1, 5, 2)
    assert found["words"]["by_file"] == {"a.py": 1}
    assert found["functions"]["median"] == 2


def test_figures_are_written_as_tables(tmp_path: Path) -> None:
    lines = CliRunner().invoke(main, ["--root", _root(tmp_path)]).output.splitlines()
    assert lines[0].split() == ["files", "/", "lines", "1", "/", "5"]
    assert "       1  a.py" in lines


def test_packages_are_compared_with_the_tree(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--root", _root(tmp_path), "--json", "compare", "click"])
    assert set(json.loads(result.output)) == {"click", "here"}


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--root", _root(tmp_path), "compare", "no_such_package"])
    assert result.exit_code == 1
    assert (
        "package 'no_such_package' is not installed: pip install no_such_package" in result.output
    )


def test_help_has_examples() -> None:
    for arguments in (["--help"], ["spine", "--help"], ["compare", "--help"]):
        assert "Examples:" in CliRunner().invoke(main, arguments).output
