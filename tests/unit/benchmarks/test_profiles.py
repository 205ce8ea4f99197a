"""Shares of functions come from collapsed stacks."""

from __future__ import annotations

from pathlib import Path

from benchmarks import profiles


def test_a_function_counts_once_a_stack_and_by_itself_where_it_is_innermost() -> None:
    own, whole = profiles.counted(["run (a.py);read (b.py) 3", "run (a.py);run (a.py) 2"])
    assert own == {"read (b.py)": 3, "run (a.py)": 2}
    assert whole == {"run (a.py)": 5, "read (b.py)": 3}


def test_the_largest_share_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "stacks"
    file.write_text("run (a.py) 1\nrun (a.py);read (b.py) 3\n")
    _, *lines = profiles.shares(file)
    assert lines == [" 75.0%  75.0%  read (b.py)", " 25.0% 100.0%  run (a.py)"]
