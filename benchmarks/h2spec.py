"""Conformance with HTTP/2: h2spec against each port of ours, and against what it is built on.

A bare grpc.aio server and a bare Envoy stand beside ours, so that a failure that they have as well
is known to be theirs. h2spec knows a server of web pages: it sends GET, which gRPC does not have.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from tests.support import processes
from tests.support.processes import free_ports

from benchmarks import load, ways
from benchmarks.report import Report, Row

BINARY = load.ROOT / "build/bin/h2spec"
_TIMEOUT_SECONDS = 2
# Which is within the time of all 145 cases, each at its timeout.
_LIMIT_SECONDS = 400
# h2spec writes received bytes into its report as they are.
_NOT_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd]")


@dataclass(frozen=True, slots=True)
class Result:
    """Of one case of a section of h2spec's list. `passed` is None where it was skipped."""

    section: str
    case: str
    passed: bool | None


Target = tuple[str, str]
"""Name, and HOST:PORT."""
# What each target is built on.
_BUILT_ON = {
    "embedded gRPC": "bare grpcio",
    "pod gRPC": "bare grpcio",
    "Envoy gRPC": "bare Envoy",
    "Envoy REST": "bare Envoy",
}
TARGETS = ("bare grpcio", "embedded gRPC", "pod gRPC", "bare Envoy", "Envoy gRPC", "Envoy REST")


def run(directory: Path, *, quick: bool = False) -> Report:
    subprocess.run([load.ROOT / "scripts/go_tools", "h2spec"], check=True)
    ways.build()
    report = Report("h2spec", "h2spec: passed of all, by section", ("section", *TARGETS), width=160)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        targets = _targets(Path(scratch), stack)
        with ThreadPoolExecutor(len(targets)) as threads:
            found = dict(threads.map(partial(_checked, Path(scratch)), targets))
    report.rows.extend(rows(found))
    for name, base in _BUILT_ON.items():
        report.notes.append(f"{name} fails, {base} does not: {_only(found[name], found[base])}")
    report.publish(directory)
    return report


def _targets(scratch: Path, stack: ExitStack) -> list[Target]:
    (port,) = free_ports(1)
    bare = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.bare_grpc", bare]
    child = subprocess.Popen(command, cwd=load.ROOT, stderr=subprocess.DEVNULL)
    stack.callback(child.wait)
    stack.callback(child.terminate)
    pod = processes.echo_pod(scratch)
    planes = {}
    stack.enter_context(processes.running(pod))
    for plane in ("embedded", "envoy"):
        gateway = processes.gateway(scratch, [pod], "--data-plane", plane, "--log-level", "error")
        gateway.log = scratch / f"{plane}.log"
        stack.enter_context(processes.running(gateway))
        planes[plane] = gateway
    envoy = stack.enter_context(ways.bare_envoy(scratch, stack.enter_context(ways.mock(scratch))))
    processes.eventually(lambda: _listens(envoy.http) and _listens(bare))
    addresses = (
        *(bare, planes["embedded"].grpc_address, pod.grpc_address),
        *(envoy.http, planes["envoy"].grpc_address, planes["envoy"].http_address),
    )
    return list(zip(TARGETS, addresses, strict=True))


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def _checked(scratch: Path, target: Target) -> tuple[str, list[Result]]:
    name, address = target
    host, _, port = address.partition(":")
    file = scratch / f"{name}.xml"
    command = [str(BINARY), "-h", host, "-p", port, "-o", str(_TIMEOUT_SECONDS), "-j", str(file)]
    # It exits with 1 where a case fails.
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=_LIMIT_SECONDS, check=False)
    return name, list(results(file.read_text(errors="replace")))


def results(report: str) -> Iterator[Result]:
    """The cases of a JUnit report of h2spec."""
    for suite in ElementTree.fromstring(_NOT_XML.sub("?", report).encode()):
        for case in suite:
            kinds = {child.tag for child in case}
            passed = None if "skipped" in kinds else not kinds
            section = f"{suite.get('package', '').partition('/')[0]} {suite.get('name')}"
            yield Result(section, case.get("classname", ""), passed)


def rows(found: Mapping[str, Sequence[Result]]) -> list[Row]:
    """Passed of all, for each section in which any target fails, and for all of them."""
    sections = dict.fromkeys(one.section for one in next(iter(found.values())))
    made = [_row(section, found) for section in sections]
    return [row for row in made if _has_failure(row)] + [_row("", found)]


def _row(section: str, found: Mapping[str, Sequence[Result]]) -> Row:
    row = {"section": section or "all"}
    for name, of in found.items():
        counted = Counter(one.passed for one in of if section in ("", one.section))
        row[name] = f"{counted[True]}/{counted[True] + counted[False]}"
    return row


def _has_failure(row: Row) -> bool:
    counts = (str(value).split("/") for name, value in row.items() if name != "section")
    return any(passed != every for passed, every in counts)


def _only(ours: Sequence[Result], bare: Sequence[Result]) -> str:
    also = {(one.section, one.case) for one in bare if one.passed is False}
    mine = [
        f"{one.section}: {one.case}"
        for one in ours
        if one.passed is False and (one.section, one.case) not in also
    ]
    return "; ".join(mine) or "nothing"
