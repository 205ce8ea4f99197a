"""The graph of imports."""

from __future__ import annotations

from scripts.measure.imports import graph, rings, rings_by_package, with_one_importer
from tests.unit.scripts.conftest import Tree


def test_imports_for_type_checking_inside_functions_and_relative_ones_count(tree: Tree) -> None:
    modules = tree(
        {
            "__init__.py": "",
            "a/__init__.py": "from .b import thing\n",
            "a/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.c\n",
            "c.py": "def f():\n    from app.a import b\n    from app.a import thing\n",
        }
    )
    assert graph(modules) == {
        "app": frozenset(),
        "app.a": {"app.a.b"},
        "app.a.b": {"app.c"},
        "app.c": {"app.a.b", "app.a"},
    }


def test_a_ring_is_modules_that_reach_each_other() -> None:
    found = rings(
        {
            "p.a.one": frozenset({"p.a.two"}),
            "p.a.two": frozenset({"p.a.three"}),
            "p.a.three": frozenset({"p.a.one", "p.b"}),
            "p.b": frozenset({"p.c"}),
            "p.c": frozenset({"p.b"}),
            "p.d": frozenset({"p.b"}),
        }
    )
    assert found == [("p.a.one", "p.a.three", "p.a.two"), ("p.b", "p.c")]


def test_rings_are_listed_by_the_package_that_they_share() -> None:
    both = {"p.a.x": frozenset({"p.a.y"}), "p.a.y": frozenset({"p.a.x"})}
    across = {"p.b": frozenset({"p.c"}), "p.c": frozenset({"p.b"})}
    assert rings_by_package(both | across) == {
        "p.a": [("p.a.x", "p.a.y")],
        "p.b + p.c": [("p.b", "p.c")],
    }


def test_a_module_with_one_importer_is_no_package(tree: Tree) -> None:
    modules = tree(
        {"a/__init__.py": "", "b.py": "import app.a, app.c, app.d\n", "c.py": "import app.d\n"}
        | {"d.py": ""}
    )
    assert with_one_importer(modules) == ("app.c",)
