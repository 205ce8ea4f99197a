"""`autoglm bench`: load, and a table of its latencies and rates."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import click

from autoglm.cli.bench.figures import NAMES, figures, histogram, samples
from autoglm.cli.bench.load import Plan, Run, measure, models_at
from autoglm.cli.bench.prompts import Messages, as_chat, of_file, of_length
from autoglm.cli.options import api_key_file_option, examples, key_of, only_model, output_option
from autoglm.cli.output import print_json, print_table

INTERRUPTED, FAILED = 130, 1
_LINE_SECONDS = 10.0


@click.command(
    epilog=examples(
        "autoglm bench --concurrency 32 --requests 500",
        "autoglm bench --url https://llm.example.com --model qwen3-8b --rate 4 --duration 60",
        "autoglm bench --dataset prompts.jsonl --output json > before.json",
    )
)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    envvar="AUTOGLM_URL",
    show_envvar=True,
    help="REST address of a gateway, a pod, or another server of OpenAI's API.",
)
@click.option("--model", default="", help="Served name. [default: the only model]")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100_000),
    help="Requests at once. [default: 8; no bound with --rate]",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Mean requests a second, at random times (Poisson), instead of one after another.",
)
@click.option("--requests", type=click.IntRange(1), help="[default: 100; no bound with --duration]")
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Start no request later than this; those that run complete.",
)
@click.option("--prompt-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--output-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option(
    "--dataset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of prompts instead: lines of text, or of JSON with `prompt` or `messages`.",
)
@click.option("--chat", is_flag=True, help="Send prompts as chats, not as completions.")
@click.option("--stream/--no-stream", default=True, help="[default: stream]")
@click.option("--ignore-eos", is_flag=True, help="Generate --output-tokens always (vLLM, echo).")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time of a request.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the prompts.")
@click.option("--histogram", "with_bars", is_flag=True, help="Print the distributions as bars.")
@api_key_file_option
@output_option
def command(
    url: str,
    model: str,
    concurrency: int | None,
    rate: float | None,
    requests: int | None,
    duration: float | None,
    prompt_tokens: int,
    output_tokens: int,
    dataset: Path | None,
    chat: bool,
    stream: bool,
    ignore_eos: bool,
    timeout: float,
    seed: int,
    with_bars: bool,
    api_key_file: TextIO | None,
    output: str,
) -> int:
    """Measure latencies and rates under load.

    Ctrl-C ends it and prints what was measured. Exits with 1 if all requests failed.
    """
    key = key_of(api_key_file) if api_key_file else os.environ.get("AUTOGLM_API_KEY", "")
    plan = Plan(
        url=url.rstrip("/").removesuffix("/v1"),
        model=model,
        prompts=_prompts(dataset, prompt_tokens, seed, chat),
        output_tokens=output_tokens,
        streams=stream,
        concurrency=concurrency or (0 if rate else 8),
        rate=rate or 0.0,
        requests=requests or (0 if duration else 100),
        duration=duration or 0.0,
        timeout=timeout,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        ignores_eos=ignore_eos,
    )
    plan = replace(plan, model=model or asyncio.run(_only_model(plan)))
    run = Run()
    with suppress(KeyboardInterrupt):
        asyncio.run(_watched(plan, run))
    found = figures(run.outcomes, run.seconds)
    if output == "json":
        print_json(found)
    else:
        _print(found)
    if with_bars and output == "text":
        _print_bars(run)
    if run.is_interrupted:
        return INTERRUPTED
    return 0 if found["requests"]["completed"] else FAILED


def _prompts(dataset: Path | None, tokens: int, seed: int, chat: bool) -> Iterator[str | Messages]:
    try:
        found = of_file(dataset) if dataset else of_length(tokens, seed)
    except (ValueError, OSError) as error:
        raise click.BadParameter(str(error), param_hint="--dataset") from error
    return map(as_chat, found) if chat else iter(found)


async def _only_model(plan: Plan) -> str:
    try:
        names = await models_at(plan.url, plan.headers)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        message = f"{plan.url}/v1/models does not respond: {why}; check --url and the API key"
        raise click.ClickException(message) from error
    return only_model(names)


async def _watched(plan: Plan, run: Run) -> None:
    """Measure, and show the progress on stderr meanwhile."""
    watching = asyncio.create_task(_show(plan, run))
    try:
        await measure(plan, run)
    finally:
        watching.cancel()
        if sys.stderr.isatty():
            click.echo("", err=True)


async def _show(plan: Plan, run: Run) -> None:
    is_terminal = sys.stderr.isatty()
    while True:
        await asyncio.sleep(1.0 if is_terminal else _LINE_SECONDS)
        of = f" of {plan.requests}" if plan.requests else ""
        failed = sum(bool(each.error) for each in run.outcomes)
        text = f"{len(run.outcomes)}{of} requests, {run.running} running, {failed} failed"
        click.echo(f"\r{text:<60}" if is_terminal else text, err=True, nl=not is_terminal)


def _print(found: dict[str, Any]) -> None:
    counts, errors = found["requests"], found["errors"]
    click.echo(
        f"{counts['completed']} requests completed, {counts['failed']} failed, in "
        f"{found['seconds']:.1f} s"
    )
    for error, count in errors.items():
        click.echo(f"  {count} x {error}")
    click.echo(
        f"{found['requestsPerSecond']:.2f} requests/s, {found['inputTokensPerSecond']:.0f} input "
        f"tokens/s, {found['outputTokensPerSecond']:.0f} output tokens/s"
    )
    if not found["milliseconds"]:
        return
    click.echo("")
    columns = list(next(iter(found["milliseconds"].values())))
    rows = [
        (name.upper(), *(f"{values[column]:.1f}" for column in columns), NAMES[name])
        for name, values in found["milliseconds"].items()
    ]
    print_table(["MILLISECONDS", *map(str.upper, columns), ""], rows)


def _print_bars(run: Run) -> None:
    good = [each for each in run.outcomes if not each.error]
    for name, values in samples(good).items():
        if values:
            click.echo(f"\n{name.upper()}, {NAMES[name]}")
            for line in histogram(values):
                click.echo(line)
