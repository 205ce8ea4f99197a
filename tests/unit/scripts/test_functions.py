"""Lengths of functions."""

from __future__ import annotations

from scripts.measure.functions import Lengths, lengths, lengths_by_folder
from tests.unit.scripts.conftest import Tree


def test_a_length_is_from_def_to_the_last_line_without_decorators(tree: Tree) -> None:
    modules = tree({"a.py": "@property\ndef one() -> int:\n    return 1\n"})
    assert lengths(modules) == Lengths(1, 2, 2, 2)


def test_functions_over_60_and_110_lines_are_named(tree: Tree) -> None:
    def function(name: str, lines: int) -> str:
        return f"def {name}():\n" + "    x = 1\n" * (lines - 1)

    modules = tree({"a/b.py": function("f60", 60) + function("f61", 61) + function("f111", 111)})
    found = lengths_by_folder(modules)["a"]
    assert found.over_60 == ("a/b.py:61 f61", "a/b.py:122 f111")
    assert found.over_110 == ("a/b.py:122 f111",)


def test_a_tree_without_functions_has_lengths(tree: Tree) -> None:
    assert lengths(tree({"a.py": "x = 1\n"})) == Lengths()
