"""A table on a narrow terminal keeps every fact, each with the name of its column."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autoglm.cli.screen import Canvas, drawn, table

HEADER = ("NAME", "STATE", "AGE", "URL")
ROWS = (
    ("chat", "Ready", "2d0h", "http://llm.example.com"),
    ("embed", "Pending", "1m00s", "-"),
)


def lines(width: int, rows: Sequence[Sequence[str]] = ROWS, indent: int = 0) -> list[str]:
    return drawn([table(HEADER, rows, indent)], Canvas(width)).splitlines()


def test_a_wide_terminal_has_one_line_a_row() -> None:
    assert lines(80) == [
        "NAME   STATE    AGE    URL",
        "chat   Ready    2d0h   http://llm.example.com",
        "embed  Pending  1m00s  -",
    ]


def test_what_has_no_room_is_below_its_row_with_its_name() -> None:
    assert lines(32) == [
        "NAME   STATE    AGE",
        "chat   Ready    2d0h",
        "  URL http://llm.example.com",
        "embed  Pending  1m00s",
    ]


def test_the_longest_goes_first_and_only_as_many_as_have_to() -> None:
    assert lines(26)[:2] == ["NAME   STATE    AGE", "chat   Ready    2d0h"]
    assert lines(18)[:3] == ["NAME   STATE", "chat   Ready", "  AGE 2d0h"]


def test_a_little_less_room_wraps_within_a_column() -> None:
    assert lines(42)[1:3] == [
        "chat   Ready    2d0h   http://llm.example.",
        "                       com",
    ]


@pytest.mark.parametrize("width", range(16, 100))
@pytest.mark.parametrize("indent", [0, 2])
def test_no_cell_is_lost_at_any_width(width: int, indent: int) -> None:
    found = lines(width + indent, indent=indent)

    assert max(map(len, found)) <= width + indent
    shown = "".join("".join(found).split())
    assert all(cell in shown for row in ROWS for cell in row if cell != "-")


def test_words_in_brackets_are_text() -> None:
    assert "[bold]x" in lines(80, [("[bold]x", "a", "b", "c")])[1]
