"""Tables and sentences fit the terminal; files and pipes get one line a row."""

from __future__ import annotations

import sys

import pytest

from autoglm.cli.output import print_table, print_wrapped, wrapped

HEADER = ("ENDPOINT", "STATE", "IN FLIGHT", "KV CACHE", "WHY")
ROW = ("grpc://127.0.0.1:41000", "ejected", 0, 0.25, "3 failures in a row")


def test_a_pipe_gets_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADER, [ROW])
    print_wrapped("many words " * 40)

    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits_the_terminal_and_loses_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")

    print_table(HEADER, [ROW])

    out = capsys.readouterr().out
    assert all(len(line) <= width for line in out.splitlines())
    assert all(str(cell) in out for cell in (*HEADER, *ROW))


def test_a_text_breaks_between_words_only() -> None:
    lines = wrapped("limits: {nvidia.com/gpu: 1}", 12, "  ", "    ")

    assert lines == ["  limits:", "    {nvidia.com/gpu:", "    1}"]
