"""Reads manifests and watches their files for changes. Called by `up`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from watchfiles import Change, awatch

from autoglm.api import InvalidSpec, Problem
from autoglm.api.documents import load_documents, problems_between
from autoglm.local.command import Placed


def read(files: Sequence[Path]) -> list[Placed]:
    """Return the resources of all files. Raises InvalidSpec with all problems of all files."""
    placed: list[Placed] = []
    problems: list[Problem] = []
    for file in files:
        try:
            resources = load_documents(file.read_text(encoding="utf-8"), str(file))
        except InvalidSpec as error:
            problems += error.problems
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem("", f"can't be read: {error}", source=str(file)))
        else:
            placed += [Placed(resource, file.resolve().parent) for resource in resources]
    if len(files) > 1 and not problems:
        problems = problems_between(p.resource for p in placed)
    if problems:
        raise InvalidSpec(problems)
    return placed


async def saves(files: Sequence[Path]) -> AsyncIterator[None]:
    """Yield whenever one of the files has been written."""
    # Of directories, since editors replace files, which ends a watch on the file itself.
    paths = {str(file.resolve()) for file in files}
    directories = {file.resolve().parent for file in files}

    def is_ours(change: Change, path: str) -> bool:
        return path in paths and change is not Change.deleted

    async for _ in awatch(*directories, watch_filter=is_ours, recursive=False, debounce=200):
        yield
