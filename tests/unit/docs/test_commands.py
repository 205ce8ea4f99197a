"""Each command of ours that a document shows exists, with each option that it is shown with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from autoglm.cli import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("examples/**/*.md")]
# In a fence, or indented by four spaces.
_COMMAND = re.compile(
    r"^(?:    )?(?:\$ )?(?:\.venv/bin/|kubectl )?autoglm ([a-z](?:\\\n|.)*)", re.MULTILINE
)
_END = re.compile(r"\s(?:[|>&#;]|&&|\d>).*$", re.DOTALL)
# The lines of code: fences, and what is indented.
_CODE = re.compile(r"^```.*?^```|(?:^    .*\n)+", re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for code in _CODE.findall(page.read_text()):
            for text in _COMMAND.findall(code):
                yield str(page.relative_to(ROOT)), _END.sub("", text.replace("\\\n", " "))


@pytest.mark.parametrize(("page", "text"), sorted(set(commands())))
def test_a_shown_command_exists_with_its_options(page: str, text: str) -> None:
    words = shlex.split(text)
    context, command = click.Context(cli), cli.get_command(click.Context(cli), words[0])
    assert command is not None, f"{page}: there is no `autoglm {words[0]}`"
    if isinstance(command, click.Group):
        command = command.get_command(context, words[1])
        assert command is not None, f"{page}: there is no `autoglm {words[0]} {words[1]}`"
    known = {n for p in command.params for n in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}

    shown = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}

    assert shown <= known, f"{page}: {shown - known} of `autoglm {text}`"


def test_documents_show_commands() -> None:
    assert len(set(commands())) > 60
