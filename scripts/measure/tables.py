"""Gathers the figures of a tree and writes them as tables or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from scripts.measure.functions import lengths, lengths_by_folder
from scripts.measure.imports import graph, rings_by_package, with_one_importer
from scripts.measure.private import Private, private_functions
from scripts.measure.size import full_folders, long_files, repeated_classes, size
from scripts.measure.source import Module
from scripts.measure.spine import GATEWAY_REST, GOAL_FILES, GOAL_LINES, Spine
from scripts.measure.words import Found, find

Figures = dict[str, Any]


def figures(modules: Sequence[Module]) -> Figures:
    sizes, length, private = size(modules), lengths(modules), private_functions(modules)
    one = with_one_importer(modules)
    return {
        "files": sizes.files,
        "lines": sizes.lines,
        "code_lines": sizes.code_lines,
        "header_share": round(sizes.header_share, 3),
        "modules_with_one_importer": len(one),
        **_private(private),
        "functions": asdict(length),
        "functions_by_folder": {
            folder: asdict(found) for folder, found in lengths_by_folder(modules).items()
        },
        "files_over_400_lines": long_files(modules),
        "folders_over_15_modules": full_folders(modules),
        "class_names_in_several_files": repeated_classes(modules),
        "words": word_counts(found for m in modules for found in find(str(m.path), m.text)),
        "rings": rings_by_package(graph(modules)),
    }


def _private(found: Private) -> Figures:
    once, direct = found.called_once, len(found.direct)
    return {
        "private_functions": found.count,
        "private_functions_called_once": once,
        "private_functions_called_once_share": round(found.share(once), 3),
        "private_functions_called_once_directly": direct,
        "private_functions_called_once_directly_share": round(found.share(direct), 3),
        "private_functions_called_once_directly_median_lines": found.direct_median,
        "private_functions_called_once_directly_up_to_6_lines": found.direct_short,
        "private_functions_used_once_as_value": found.as_values,
        "private_functions_used_once_as_value_share": round(found.share(found.as_values), 3),
    }


def word_counts(found: Iterable[Found]) -> Figures:
    kept = list(found)
    return {
        "count": len(kept),
        "by_word": dict(Counter(one.word for one in kept).most_common()),
        "by_kind": dict(Counter(one.kind for one in kept).most_common()),
        "by_file": dict(Counter(one.path for one in kept).most_common()),
    }


def packages(named: dict[str, Sequence[Module]]) -> Figures:
    """Of several packages, what compares."""
    found: Figures = {}
    for name, modules in named.items():
        sizes, length = size(modules), lengths(modules)
        found[name] = {
            "files": sizes.files,
            "lines": sizes.lines,
            "code_lines": sizes.code_lines,
            "header_share": round(sizes.header_share, 3),
            "functions": asdict(length),
            "largest_folder": max(Counter(m.folder for m in modules).values(), default=0),
            "rings": [
                len(ring) for found in rings_by_package(graph(modules)).values() for ring in found
            ],
        }
    return found


def text(found: Figures) -> Iterator[str]:
    """The figures of a tree, for a terminal."""
    functions, words = found["functions"], found["words"]
    yield from _rows(
        ("files / lines", f"{found['files']:,} / {found['lines']:,}"),
        ("code lines", f"{found['code_lines']:,}"),
        ("share of file headers", f"{found['header_share']:.0%}"),
        ("modules with one importer", found["modules_with_one_importer"]),
        ("private functions called once", _share(found, "called_once")),
        ("- by a direct call (one caller)", _direct(found)),
        ("- as a value (callback, table, hook)", _share(found, "used_once_as_value")),
        ("function length: median / p90 / max", _lengths(functions)),
        ("functions over 60 / over 110 lines", _over(functions)),
        ("files over 400 lines", len(found["files_over_400_lines"])),
        ("folders over 15 modules", len(found["folders_over_15_modules"])),
        ("class names in two or more files", len(found["class_names_in_several_files"])),
        ("banned words", words["count"]),
        ("import rings", sum(map(len, found["rings"].values()))),
    )
    yield from _part("Functions by folder: count, median / p90 / max, over 60, over 110")
    for folder, one in found["functions_by_folder"].items():
        if one["count"]:
            yield f"  {folder:32} {one['count']:5}  {_lengths(one):12}  {_over(one)}"
    yield from _listed("Functions over 60 lines", functions["over_60"])
    yield from _counted("Files over 400 lines", found["files_over_400_lines"])
    yield from _counted("Folders over 15 modules", found["folders_over_15_modules"])
    names = {name: len(files) for name, files in found["class_names_in_several_files"].items()}
    yield from _counted("Class names in two or more files", dict(Counter(names).most_common()))
    yield from _counted("Banned words", words["by_word"])
    yield from _counted("Banned words by kind", words["by_kind"])
    yield from _counted("Banned words by file", words["by_file"])
    yield from _part("Import rings, type-only imports included")
    for package, rings in found["rings"].items():
        for ring in rings:
            yield f"  {package}: {len(ring)} modules: {', '.join(ring)}"


def spine_text(spines: Sequence[Spine]) -> Iterator[str]:
    for spine in spines:
        yield from _part(
            f"{spine.name}: {len(spine.steps)} files of {spine.lines:,} lines, "
            f"{spine.executed:,} lines executed"
        )
        if spine.name == GATEWAY_REST:
            yield f"  goal: {GOAL_FILES} files of {GOAL_LINES:,} lines"
        for step in spine.steps:
            yield f"  {step.file:48} {step.executed:5} of {step.lines:5}"


def packages_text(found: Figures) -> Iterator[str]:
    yield f"{'':12} {'files':>6} {'lines':>8} {'code':>8} {'headers':>8}  median/p90/max  rings"
    for name, one in found.items():
        yield (
            f"{name:12} {one['files']:6} {one['lines']:8,} {one['code_lines']:8,} "
            f"{one['header_share']:8.0%}  {_lengths(one['functions']):14}  {one['rings']}"
        )


def _share(found: Figures, part: str) -> str:
    number, count = found[f"private_functions_{part}"], found["private_functions"]
    return f"{number:,} of {count:,} ({found[f'private_functions_{part}_share']:.0%})"


def _direct(found: Figures) -> str:
    prefix = "private_functions_called_once_directly"
    lines, short = found[f"{prefix}_median_lines"], found[f"{prefix}_up_to_6_lines"]
    share = _share(found, "called_once_directly")
    return f"{share}, median {lines} lines, {short:,} of up to 6 lines"


def _lengths(functions: Figures) -> str:
    return f"{functions['median']}/{functions['p90']}/{functions['max']}"


def _over(functions: Figures) -> str:
    return f"{len(functions['over_60'])} / {len(functions['over_110'])}"


def _rows(*rows: tuple[str, object]) -> Iterator[str]:
    for name, value in rows:
        yield f"{name:40} {value}"


def _part(title: str) -> Iterator[str]:
    yield ""
    yield title


def _listed(title: str, rows: Sequence[str]) -> Iterator[str]:
    yield from _part(title)
    yield from (f"  {row}" for row in rows)


def _counted(title: str, rows: dict[str, int]) -> Iterator[str]:
    yield from _part(title)
    yield from (f"  {count:6,}  {name}" for name, count in rows.items())
