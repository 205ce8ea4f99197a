"""The commands of a page: its fenced blocks that are marked for a run. Pure.

The words after a block's language mark it; neither the site nor a code host shows them:

    ```sh run           runs it; it has to exit with 0 (`exit=N`: with N); also ```python run
    ```sh server        starts it, and continues when it prints a line that begins with "ready:"
    ```sh dry           needs a GPU, a hub or a cluster: checks what can be checked without
    ```text output      what the block before it prints; `...` stands for any text

`mark=NAME` on the first two measures the time from the page's first command to the end of this one.
All blocks of a page run in one directory and keep its variables. A server ends where the next one
starts, or with the page. Names of models that have a stand-in lead to the stand-in, on the CPU.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w+) ([^\n]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?[^\n]*\n.*?^\s*\1$", re.DOTALL | re.MULTILINE)
_GPUS = re.compile(r"\s--gpus[ =]\d+")
_LANGUAGES = ("sh", "bash", "text", "python")
_PYTHON = "python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON\n"
_KINDS = ("run", "server", "dry", "output")
_OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class BadPage(ValueError):
    """A page marks a block in a way that is not known."""


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    text: str
    line: int
    exit_code: int = 0
    mark: str = ""
    output: str | None = None
    """What it has to print; None: anything."""

    @property
    def commands(self) -> list[str]:
        """The commands, without the texts that they read."""
        text = _HEREDOC.sub(lambda match: match[0].partition("\n")[0], self.text)
        lines = text.replace("\\\n", " ").splitlines()
        return [
            each.strip() for each in lines if each.strip() and not each.lstrip().startswith("#")
        ]


def blocks(page: str) -> list[Block]:
    """The marked blocks of a page in order. Raises BadPage."""
    found: list[Block] = []
    for match in _FENCE.finditer(page):
        language, words, text = match.groups()
        if language not in _LANGUAGES:
            continue
        line = page.count("\n", 0, match.start()) + 1
        kind, *options = words.split()
        if kind not in _KINDS:
            raise BadPage(f"line {line}: {kind!r} is no mark of a block; use {', '.join(_KINDS)}")
        if kind == "output":
            if not found:
                raise BadPage(f"line {line}: output without a block before it")
            last = found.pop()
            found.append(Block(last.kind, last.text, last.line, last.exit_code, last.mark, text))
            continue
        if language == "python":
            text = _PYTHON.format(text=text)
        settings = dict(each.split("=", 1) for each in options)
        if not settings.keys() <= {"exit", "mark"}:
            raise BadPage(f"line {line}: {words!r} has an unknown option; use exit= and mark=")
        exit_code, mark = int(settings.get("exit", 0)), settings.get("mark", "")
        found.append(Block(kind, text, line, exit_code, mark))
    return found


def is_printed(wanted: str, output: str) -> bool:
    """Whether `output` is what a page shows; spaces and line breaks count alike."""
    return doctest.OutputChecker().check_output(wanted, output, _OUTPUT)


def on_this_machine(text: str, stand_ins: Iterable[str], path: Callable[[str], str]) -> str:
    """The text with the stand-ins of its models, and then without GPUs; what loads none is kept."""
    if "--print-manifest" in text:
        return text
    for name in sorted(stand_ins, key=len, reverse=True):
        if name in text:
            text = text.replace(f"hf://{name}", name).replace(name, path(name))
            text = _GPUS.sub("", text)
    return text


def rehearsals(block: Block) -> Iterator[str]:
    """What checks each command without what it needs; empty where nothing does."""
    for command in block.commands:
        yield rehearsal(command)


def rehearsal(command: str) -> str:
    """The command that checks this one on any machine; empty where there is none."""
    if command.startswith("autoglm serve "):
        return f"{command} --print-manifest | autoglm validate -"
    if re.match(r"autoglm (up|deploy) ", command):
        return re.sub(r" --wait\b| -d\b", "", command) + " --dry-run"
    if applied := re.fullmatch(r"kubectl apply (?:--server-side )?-f (\S+\.yaml)(?: .*)?", command):
        file = applied[1]
        return f"test -f {file}; ! grep -q AutoGLMDeployment {file} || autoglm validate {file}"
    if command.startswith("helm install "):
        return command.replace("helm install", "helm template", 1).replace(" --wait", "")
    return ""
