"""What `make demo` runs: two real vLLM pods and a gateway, used in four ways, traced and measured.

    .venv/bin/python examples/demo.py

Starts `autoglm up -f examples/tiny-glm.yaml` as a child, sends requests over gRPC streaming, gRPC
chat, OIP v2 and OpenAI REST, shows the trace of one request and a small load run, and stops
everything. Exits non-zero when a response, the shutdown or anything else is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import numpy as np
import openai
import psutil
import tritonclient.grpc as triton
import yaml
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from autoglm.cli.commands.trace import Span, read_spans, show, trace_of
from autoglm.client import AsyncClient, Client
from autoglm.common.errors import AutoGLMError
from autoglm.common.rpc import new_request_id
from autoglm.common.telemetry import set_up_traces
from autoglm.local.planning import Addresses

EXAMPLES = Path(__file__).parent
MODEL = "tiny-glm"
START_SECONDS = 280.0
STOP_SECONDS = 45.0
SPANS_SECONDS = 5.0
MAX_TOKENS = 200
# The engine's own span is the last of a request to be written.
ENGINE_SPAN = "llm_request"
console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """Something is not as it should be; the text says what."""


def main() -> int:
    options = _options()
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="autoglm-demo-"))
    try:
        _demo(options, scratch)
    except KeyboardInterrupt:
        return 130
    except (DemoFailed, AutoGLMError, openai.OpenAIError) as error:
        console.print("\n[bold red]The demo failed:[/]", end=" ")
        console.print(f"{error}\nLogs and spans are in {scratch}", markup=False)
        return 1
    shutil.rmtree(scratch)
    console.print(f"\n[bold green]All as it should be[/], in {time.monotonic() - began:.0f} s.")
    console.print("To serve the model until Ctrl-C: .venv/bin/autoglm up -f examples/tiny-glm.yaml")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the tiny model behind a gateway, use it, trace, measure, stop",
        epilog="example: python examples/demo.py --requests 200 --concurrency 16",
    )
    parser.add_argument("--requests", type=int, default=60, help="of the load run (default: 60)")
    parser.add_argument("--concurrency", type=int, default=8, help="at a time (default: 8)")
    return parser.parse_args()


def _demo(options: argparse.Namespace, scratch: Path) -> None:
    spans = scratch / "spans.jsonl"
    set_up_traces("demo", f"file:{spans}", 1.0)
    usual = Addresses()
    addresses = Addresses(*(_free(a) for a in (usual.grpc, usual.http, usual.metrics)))
    with _cluster(addresses, scratch, spans), Client(addresses.grpc, model=MODEL) as client:
        traced = _use_four_apis(client, addresses)
        _show_trace(spans, traced)
        asyncio.run(_measure(addresses.grpc, options.requests, options.concurrency))


# -- the cluster ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _cluster(addresses: Addresses, scratch: Path, spans: Path) -> Iterator[None]:
    """`autoglm up` as a child, ready; at the end it must stop cleanly and leave nothing behind."""
    manifest = EXAMPLES / "tiny-glm.yaml"
    shown = manifest.relative_to(Path.cwd()) if manifest.is_relative_to(Path.cwd()) else manifest
    console.rule(f"autoglm up -f {shown}")
    up = subprocess.Popen(
        [
            *(sys.executable, "-m", "autoglm", "up", "-f", str(manifest), "--no-watch"),
            *("--run-dir", str(scratch / "run"), "--traces", f"file:{spans}", *addresses.flags()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Out of the terminal's reach: Ctrl-C stops the demo, and the demo stops this.
        start_new_session=True,
    )
    try:
        _wait_ready(up)
        yield
    except BaseException:
        _stop(up)
        raise
    _check_stop(up)


def _wait_ready(up: subprocess.Popen[str]) -> None:
    """Shows what `up` says until it says that everything is ready."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(up, lines), daemon=True).start()
    began = time.monotonic()
    console.print("Two vLLM engines start; that takes 20 to 60 seconds on an idle machine.")
    with console.status("starting") as status:
        while (left := began + START_SECONDS - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=left)
                if line is None:
                    raise DemoFailed(f"`autoglm up` ended with exit code {up.wait()}")
                _show_progress(line, time.monotonic() - began, status)
                if line.startswith("ready:"):
                    return
    raise DemoFailed(f"not ready within {START_SECONDS:.0f} s")


def _show_progress(line: str, seconds: float, status: Status) -> None:
    """On a terminal, reports that nothing has changed yet replace each other."""
    if console.is_terminal and ": starting for" in line:
        status.update(Text(line))
    else:
        console.print(Text.assemble((f"{seconds:5.1f} s  ", "dim"), line))


def _read_lines(up: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Keeps reading to the end, so that `up` never blocks on a full pipe."""
    assert up.stdout is not None
    for line in up.stdout:
        lines.put(line.rstrip())
    lines.put(None)


def _check_stop(up: subprocess.Popen[str]) -> None:
    console.rule("shutdown")
    if up.poll() is not None:
        raise DemoFailed(f"`autoglm up` ended by itself with exit code {up.returncode}")
    children = psutil.Process(up.pid).children(recursive=True)
    began = time.monotonic()
    code = _stop(up)
    _, alive = psutil.wait_procs(children, timeout=2)
    if code != 0:
        raise DemoFailed(f"`autoglm up` ended with exit code {code} after SIGINT")
    if alive:
        raise DemoFailed(f"still running after the shutdown: {alive}")
    console.print(
        f"SIGINT: exit code 0 after {time.monotonic() - began:.1f} s,"
        f" all of {len(children)} processes gone"
    )


def _stop(up: subprocess.Popen[str]) -> int:
    if up.poll() is None:
        up.send_signal(signal.SIGINT)
    try:
        return up.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # The second signal ends all at once.
        up.send_signal(signal.SIGINT)
        return up.wait(STOP_SECONDS)


def _free(address: str) -> str:
    """The address itself where no process listens, else the same host with a free port."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


# -- the questions --------------------------------------------------------------------------------


def _use_four_apis(client: Client, addresses: Addresses) -> str:
    """Prints responses as they come and checks them; returns the request id to trace."""
    lessons = yaml.safe_load((EXAMPLES / "tiny-glm" / "questions.yaml").read_text("utf-8"))
    expected = {q["question"]: q["answer"] for q in lessons["questions"]}
    request_id = new_request_id()

    question = "What is Open-AutoGLM?"
    ids = client.tokenize([{"role": "user", "content": question}]).token_ids
    chunks = client.generate_stream(ids, max_tokens=MAX_TOKENS, temperature=0)
    _check("gRPC, streamed tokens", question, expected, (c.text for c in chunks))

    question = "What is OpenTelemetry used for?"
    turns = client.chat_stream(
        [{"role": "user", "content": question}], temperature=0, request_id=request_id
    )
    _check("gRPC, streamed chat", question, expected, (c.delta.content for c in turns))

    question = "What is OIP v2?"
    _check("OIP v2, tritonclient", question, expected, _triton(addresses.grpc, question))

    question = "Can I use the OpenAI client?"
    _check("REST, openai package", question, expected, _openai(addresses.http, question))
    return request_id


def _check(way: str, question: str, expected: dict[str, str], pieces: Iterable[str]) -> None:
    console.rule(way)
    console.print(f"[bold]{question}[/]")
    text = ""
    for piece in pieces:
        text += piece
        console.print(piece, end="", style="cyan", markup=False)
    console.print()
    if text.strip() != expected[question]:
        raise DemoFailed(f"{way}: expected {expected[question]!r}, got {text!r}")


def _triton(address: str, question: str) -> Iterator[str]:
    """A stream of Triton's own client, on the protocol that KServe speaks as well."""
    arrived: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([question.encode()], dtype=np.object_))
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(
            MODEL, [tensor], parameters={"temperature": 0.0, "max_tokens": MAX_TOKENS}
        )
        final = False
        while not final:
            result, error = arrived.get(timeout=60)
            if result is None:
                raise DemoFailed(f"OIP v2: {error}")
            yield result.as_numpy("text_output")[0].decode()
            final = result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()


def _openai(address: str, question: str) -> Iterator[str]:
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            stream=True,
        )
        for chunk in stream:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""


# -- the trace ------------------------------------------------------------------------------------


def _show_trace(file: Path, request_id: str) -> None:
    console.rule("one request, hop by hop")
    end = time.monotonic() + SPANS_SECONDS
    trace: Sequence[Span] = ()
    while not any(s.name == ENGINE_SPAN for s in trace):
        if time.monotonic() > end:
            names = ", ".join(s.name for s in trace) or "none"
            raise DemoFailed(
                f"no span {ENGINE_SPAN!r} in the trace of {request_id}; spans: {names}"
            )
        # Every process writes its spans twice a second.
        time.sleep(0.1)
        trace = trace_of(read_spans(file), request_id) if file.exists() else ()
    show(trace)


# -- the load run ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of the load run."""

    first_token_seconds: float
    tokens: int


async def _measure(address: str, requests: int, concurrency: int) -> None:
    console.rule(f"{requests} requests, {concurrency} at a time")
    slots = asyncio.Semaphore(concurrency)
    async with AsyncClient(address, model=MODEL) as client:
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *(_sample(client, slots, number) for number in range(requests)),
            return_exceptions=True,
        )
        seconds = time.monotonic() - began
    samples = [o for o in outcomes if isinstance(o, Sample)]
    failures = [o for o in outcomes if not isinstance(o, Sample)]
    _print_table(samples, len(failures), seconds)
    if failures:
        raise DemoFailed(f"{len(failures)} requests of the load run failed: {failures[0]!r}")


async def _sample(client: AsyncClient, slots: asyncio.Semaphore, number: int) -> Sample:
    async with slots:
        began = time.monotonic()
        first, tokens = 0.0, 0
        # Prompts differ from their first token on, so that no prefix is found in the cache.
        stream = client.generate_stream(
            f"{number}: Tell me the way of a request.",
            max_tokens=64,
            ignore_eos=True,
            temperature=0,
        )
        async for chunk in stream:
            first = first or time.monotonic() - began
            tokens += len(chunk.token_ids)
        return Sample(first, tokens)


def _print_table(samples: Sequence[Sample], errors: int, seconds: float) -> None:
    table = Table("REQUESTS", "TOKENS/S", "FIRST TOKEN P50", "FIRST TOKEN P99", "ERRORS", box=None)
    waits = [1e3 * s.first_token_seconds for s in samples]
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [*waits, 0.0] * 99
    table.add_row(
        str(len(samples)),
        f"{sum(s.tokens for s in samples) / seconds:.0f}",
        f"{cuts[49]:.1f} ms",
        f"{cuts[98]:.1f} ms",
        str(errors),
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
