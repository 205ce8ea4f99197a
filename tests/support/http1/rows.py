"""All rows, and the table of docs/http-conformance.md."""

from __future__ import annotations

from tests.support.http1.bodies import BODIES
from tests.support.http1.exchanges import CONNECTIONS, METHODS, RESPONSES
from tests.support.http1.heads import FIELDS, MESSAGES, TARGETS
from tests.support.http1.row import Row

ROWS = (*MESSAGES, *TARGETS, *FIELDS, *BODIES, *CONNECTIONS, *METHODS, *RESPONSES)


def table() -> str:
    """The rows as they stand in docs/http-conformance.md."""
    lines = ["| RFC | what | embedded | Envoy | |", "|---|---|---|---|---|"]
    for row in ROWS:
        cells = [_cell(row, "embedded"), _cell(row, "envoy")]
        notes = [row.note, row.ours, row.envoys if row.envoys != row.ours else ""]
        why = ". ".join(note[0].upper() + note[1:] for note in notes if note)
        lines.append(f"| {row.rfc} | {row.what} | {' | '.join(cells)} | {why} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, plane: str) -> str:
    return "**no**" if row.fault(plane) else row.outcome(plane)


if __name__ == "__main__":
    print(table(), end="")
