"""Private functions that their module references once, by a call or as a value."""

from __future__ import annotations

import pytest
from scripts.measure.private import private_functions
from tests.unit.scripts.conftest import Tree


def test_private_is_an_underscore_or_a_name_that_no_other_module_mentions(tree: Tree) -> None:
    modules = tree(
        {
            "a.py": """\
                def public(): _once(); _twice(); _twice(); own()
                def own(): ...
                def _once(): ...
                def _twice(): ...
                class A:
                    def __init__(self): self._method()
                    def _method(self): ...
                    def method(self): ...
            """,
            "b.py": "from app.a import public\n",
        }
    )
    found = private_functions(modules)
    assert (found.count, found.called_once) == (4, 3)
    assert found.share(found.called_once) == 0.75


@pytest.mark.parametrize(
    "use",
    [
        "_x()",
        "A._x(1)",
        "self._x()",
        "super()._x()",
        "g(_x())",
        "[_x() for _ in ()]",
        "with _x(): ...",
    ],
)
def test_a_call_is_direct(tree: Tree, use: str) -> None:
    found = private_functions(tree({"a.py": f"def _x(): ...\n{use}\n"}))
    assert (found.direct, found.as_values) == ((1,), 0)


@pytest.mark.parametrize(
    "use",
    [
        "g(_x)",
        "functools.partial(self._x, 1)",
        "TABLE = {'x': A._x}",
        "threading.Thread(target=self._x)",
        "self._x",
        "@_x\ndef f(): ...",
        "@_x(1)\ndef f(): ...",
        "class B:\n  def _x(self): ...\nb._x()",
    ],
)
def test_a_reference_without_a_call_and_a_hook_are_values(tree: Tree, use: str) -> None:
    text = f"def _x(): ...\n{use}\n"
    found = private_functions(tree({"a.py": text}))
    assert (found.direct, found.as_values) == ((), text.count("def _x"))


def test_an_abstract_method_is_a_hook(tree: Tree) -> None:
    text = "class A:\n  @abc.abstractmethod\n  def _x(self): ...\n  def f(self): self._x()\n"
    found = private_functions(tree({"a.py": text}))
    assert (found.direct, found.as_values) == ((), 1)


@pytest.mark.parametrize(
    ("body", "use", "is_direct"),
    [
        ("...", "await self._x()", True),
        ("...", "create_task(self._x())", False),
        ("...", "g(self._x)", False),
        ("yield 1", "async for _ in _x(): ...", True),
        ("yield 1", "async with _x(): ...", True),
        ("g(lambda: (yield 1))", "create_task(_x())", False),
    ],
)
def test_a_coroutine_is_called_where_it_is_awaited(
    tree: Tree, body: str, use: str, is_direct: bool
) -> None:
    text = f"async def _x(): {body}\nasync def f(): \n  {use}\n"
    assert bool(private_functions(tree({"a.py": text})).direct) is is_direct


def test_direct_calls_have_a_median_of_lines_and_a_number_of_short_ones(tree: Tree) -> None:
    def function(name: str, lines: int) -> str:
        return f"def {name}():\n" + "    x = 1\n" * (lines - 1) + f"{name}()\n"

    text = function("_a", 2) + function("_b", 6) + function("_c", 7)
    found = private_functions(tree({"a.py": text}))
    assert (found.direct_median, found.direct_short) == (6, 2)
    assert private_functions(()).direct_median == 0
