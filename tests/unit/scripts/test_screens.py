"""Screens of the documentation: what a terminal shows, and where the page has it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scripts.screens import svg
from scripts.screens.__main__ import PAGE
from scripts.screens.page import Key, keys, lines_of, with_screens
from scripts.screens.terminal import Failed, plain, running, shown

ONE = "before\n<!-- screen size 60 -->\n<!-- end -->\nafter\n"
PYTHON = (sys.executable, "-c")


def test_lines_that_are_drawn_again_replace_those_before() -> None:
    first = "starting\r\nA 1\r\nB 1\r\n"
    again = "\r\x1b[1A\x1b[2K\x1b[1A\x1b[2KA 2\r\n\x1b[32mB 2\x1b[0m\r\n"

    assert shown(first + again) == ["starting", "A 2", "\x1b[32mB 2\x1b[0m"]


def test_a_hidden_cursor_is_no_text() -> None:
    assert shown("\x1b[?25lone\r\n\x1b[?25h") == ["one"]


def test_a_long_line_breaks_where_the_terminal_ends() -> None:
    assert plain(["\x1b[1mabcdef\x1b[0m", ""], 4) == ["abcd", "ef", ""]


def test_a_command_sees_a_terminal_of_that_width(tmp_path: Path) -> None:
    show = "import os, sys; print(os.get_terminal_size().columns, sys.stdout.isatty())"
    with running((*PYTHON, show), 60, {}, tmp_path) as terminal:
        terminal.read(30)

    assert shown(terminal.written) == ["60 True"]


def test_a_running_command_finds_another_width(tmp_path: Path) -> None:
    wait = (
        "import os, time\n"
        "while os.get_terminal_size().columns != 80: time.sleep(0.01)\n"
        "print('wide')"
    )
    with running((*PYTHON, wait), 60, {}, tmp_path) as terminal:
        terminal.resize(80)
        terminal.read_until("wide", 30)


def test_a_command_that_ends_too_early_fails_with_its_screen(tmp_path: Path) -> None:
    command = (*PYTHON, "print('no')")
    with running(command, 60, {}, tmp_path) as terminal, pytest.raises(Failed, match="no"):
        terminal.read_until("ready:", 30)


def test_a_screen_is_put_in_its_place_and_again() -> None:
    key = Key("size", 60)
    once = with_screens(ONE, {key: ["a", "", "b"]})

    assert list(keys(ONE)) == [key]
    assert list(lines_of(once)) == [(key, ["a", "", "b"])]
    assert with_screens(once, {key: ["a", "", "b"]}) == once
    assert with_screens(once, {}) == once
    assert once.startswith("before\n") and once.endswith("\nafter\n")


def test_an_image_loads_nothing_of_another_site() -> None:
    image = svg.drawn(["\x1b[32mready\x1b[0m"], 40, "autoglm up")

    assert "ready" in image and 'aria-label="autoglm up"' in image
    assert "font-face" not in image and "url(http" not in image


def test_every_screen_of_the_page_is_drawn_and_fits() -> None:
    screens = list(lines_of(PAGE.read_text()))

    assert {key.columns for key, _ in screens} == {60, 80, 120}
    assert all(lines for _, lines in screens)
    assert all(len(line) <= key.columns for key, lines in screens for line in lines)
