"""The prompts of a load test: of a given length, or from a file. Pure, but for reading the file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

Messages = list[dict[str, Any]]
# Common words, which most tokenizers have as one token each.
_WORDS = (
    "the time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work number "
    "night point home water room mother area money story fact month lot right study book eye job "
    "word business issue side kind head house service friend father power hour game line end"
)


def of_length(words: int, seed: int) -> Iterator[str]:
    """Yield prompts of about so many tokens, each different from its first word on."""
    chosen, known = random.Random(seed), _WORDS.split()
    while True:
        yield " ".join(chosen.choice(known) for _ in range(words))


def of_file(file: Path) -> Iterator[str | Messages]:
    """Return the prompts of a file without end. Raises ValueError with the line that has none.

    JSON lines have `prompt` or `messages`; other lines are prompts.
    """
    found: list[str | Messages] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if not line.startswith("{"):
            found.append(line)
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
        prompt = row.get("messages") or row.get("prompt")
        if not isinstance(prompt, str | list):
            raise ValueError(f"{file}, line {number}: neither `prompt` nor `messages`")
        found.append(prompt)
    if not found:
        raise ValueError(f"{file} has no prompts")
    return cycle(found)


def as_chat(prompt: str | Messages) -> Messages:
    """Return a prompt as the messages of a chat."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
