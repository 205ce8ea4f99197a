"""Sizes of files and folders."""

from __future__ import annotations

from scripts.measure.size import (
    code_lines,
    full_folders,
    header_lines,
    long_files,
    repeated_classes,
    size,
)
from tests.unit.scripts.conftest import Tree

MODULE = '''\
"""What it is."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sys

# Why.
LIMIT = 3  # a reason


@property
def name() -> str:
    """What it returns,
    in two lines."""
    text = """two
    lines"""
    return text
'''


def test_code_lines_leave_out_docstrings_comments_and_blank_lines(tree: Tree) -> None:
    (module,) = tree({"one.py": MODULE})
    assert code_lines(module) == {3, 4, 6, 7, 10, 13, 14, 17, 18, 19}


def test_a_header_ends_where_the_first_other_statement_begins(tree: Tree) -> None:
    module, decorated, empty = tree(
        {"a.py": MODULE, "b.py": "import os\n@os.fspath\nclass A: ...\n", "c.py": '"""Doc."""\n'}
    )
    assert [header_lines(m) for m in (module, decorated, empty)] == [9, 1, 1]


def test_generated_modules_are_not_counted(tree: Tree) -> None:
    modules = tree({"one.py": "x = 1\n", "v1/chat_pb2.py": "x = 1\n", "v1/chat_pb2_grpc.py": ""})
    assert (size(modules).files, size(modules).lines) == (1, 1)


def test_full_folders_count_modules_of_one_level_without_init(tree: Tree) -> None:
    modules = tree({f"a/{n}.py": "" for n in range(3)} | {"a/__init__.py": "", "a/b/c.py": ""})
    assert full_folders(modules, limit=2) == {"a": 3}
    assert full_folders(modules, limit=3) == {}


def test_long_files_are_those_over_the_limit(tree: Tree) -> None:
    modules = tree({"two.py": "x = 1\n" * 2, "three.py": "x = 1\n" * 3})
    assert long_files(modules, limit=2) == {"three.py": 3}


def test_class_names_of_one_file_are_not_repeated(tree: Tree) -> None:
    modules = tree(
        {"a.py": "class A:\n  class B: ...\nclass C:\n  class B: ...\n", "b.py": "class A: ...\n"}
    )
    assert repeated_classes(modules) == {"A": ["a.py", "b.py"]}
