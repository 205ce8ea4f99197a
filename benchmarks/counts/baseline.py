"""The recorded counts, and how far new ones may be from them. Pure but for reading the file."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import version

FILE = Path(__file__).with_name("baseline.json")
RECORD = "python -m benchmarks counts --record"
# Those whose Python code is counted as well.
_LIBRARIES = ("aiohttp", "opentelemetry-api", "prometheus-client", "protobuf", "tenacity")
# By a word in a count's name: as a share of the recorded value.
_TOLERANCES = {"API calls": 0.0, "messages": 0.0, "instructions": 0.05, "bytes": 0.15}
# With another Python or other libraries: upwards only, as the code that is counted is another.
_ELSEWHERE = 0.25


@dataclass(frozen=True, slots=True)
class Baseline:
    """`made_with` are the versions that the counts depend on."""

    made_with: Mapping[str, str]
    counts: Mapping[str, float]

    def dump(self) -> str:
        return json.dumps({"made_with": self.made_with, "counts": self.counts}, indent=1) + "\n"


def recorded() -> Baseline:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return Baseline(content["made_with"], content["counts"])


def versions() -> dict[str, str]:
    """A minor version of Python has its own bytecode; all of its patches have the same."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{library: version(library) for library in _LIBRARIES}}


def changes(before: Baseline, now: Baseline) -> list[str]:
    """A sentence for each count that is too far from what was recorded."""
    others = [
        f"{name} {now.made_with.get(name)} instead of {was}"
        for name, was in before.made_with.items()
        if now.made_with.get(name) != was
    ]
    found = [f"{name} is counted, but not recorded" for name in now.counts.keys() - before.counts]
    for name, was in before.counts.items():
        value = now.counts.get(name)
        if value is None:
            found.append(f"{name} is recorded, but not counted any more")
        elif why := _too_far(name, was, value, bool(others)):
            found.append(f"{name}: {value:g} instead of {was:g} ({why})")
    if found and others:
        found.append(f"counted with {', '.join(others)}")
    return sorted(found)


def _too_far(name: str, was: float, value: float, is_elsewhere: bool) -> str:
    """Why; empty where it is near enough."""
    most = next(share for word, share in _TOLERANCES.items() if word in name)
    if most == 0.0:
        return "" if value == was else "it is exact"
    if is_elsewhere:
        rose = value > was * (1 + _ELSEWHERE)
        return f"it may rise by {_ELSEWHERE:.0%} with other versions" if rose else ""
    return f"it may change by {most:.0%}" if abs(value - was) > most * was else ""
