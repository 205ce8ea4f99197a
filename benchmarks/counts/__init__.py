"""Counts that do not depend on the machine: of chunks, requests, decisions and reconciles.

Instructions are Python's bytecode instructions, `own` those of ours and `all` with the libraries';
one is 10 to 50 ns. Compared with a recorded baseline they guard against regressions that no clock
on a shared machine could see: tests/unit/benchmarks/test_counts.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.counts import requests
from benchmarks.counts.baseline import FILE, Baseline, changes, recorded, versions
from benchmarks.counts.decisions import decisions
from benchmarks.counts.operator import operator
from benchmarks.report import Report


def counted() -> Baseline:
    """Counts everything; takes seconds."""
    found = asyncio.run(requests.embedded())
    found |= asyncio.run(requests.envoy())
    found |= decisions()
    found |= asyncio.run(operator())
    return Baseline(versions(), found)


def run(directory: Path, *, quick: bool) -> Report:
    before, now = recorded(), counted()
    columns = ("what", "recorded", "now")
    report = Report("counts", "Counts that do not depend on the machine", columns)
    for name, value in now.counts.items():
        was = before.counts.get(name, "")
        report.rows.append({"what": name, "recorded": was, "now": value})
    report.notes.extend(changes(before, now))
    report.publish(directory)
    return report


def record() -> None:
    FILE.write_text(counted().dump())
