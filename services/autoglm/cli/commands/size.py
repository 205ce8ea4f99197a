"""`autoglm size`: estimates the memory that a model needs, and the GPUs that have enough.

Reads the configuration of a checkpoint, here or on a hub, and the headers of its weights; never
loads weights.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from autoglm.api.sizing import (
    BYTES,
    CHECKED,
    GIB,
    UTILIZATION,
    Fit,
    Gpu,
    Load,
    Shape,
    UnknownGpu,
    best_of,
    fits,
    fits_on,
    gpu_named,
    host,
    need,
)
from autoglm.api.uri import HUBS, PATH, location_of
from autoglm.cli.options import examples, output_option
from autoglm.cli.output import print_json, print_table, print_wrapped
from autoglm.cli.weights.checkpoint import Sized, read_local
from autoglm.cli.weights.modelscope import read_from_a_hub

_UNITS = {"M": 10**6, "B": 10**9, "T": 10**12, "": 1}
_CONFIGURED = "config.json"


def _parameters(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MBT]?)", (text or "").upper())
    if text is None:
        return None
    if match is None or not (found := int(float(match[1]) * _UNITS[match[2]])):
        raise click.BadParameter(f"{text!r} is not a number of parameters such as 9B")
    return found


def _gpu(context: click.Context, option: click.Parameter, text: str | None) -> Gpu | None:
    try:
        return gpu_named(text) if text is not None else None
    except UnknownGpu as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog=examples(
        "autoglm size Qwen/Qwen3-8B",
        "autoglm size ms://ZhipuAI/GLM-4-9B-0414",
        "autoglm size ./GLM-4-9B-0414 --gpu L4 --context 16384 --concurrency 32",
        "autoglm size ./config.json --parameters 9.4B --precision int8",
        "autoglm size ./GLM-4-9B-0414 --output json",
    )
)
@click.argument("model", required=False, metavar="NAME|DIR")
@click.option("--model", "named", default="", hidden=True)
@click.option("--gpu", callback=_gpu, metavar="NAME", help="Only for this GPU, such as L4.")
@click.option(
    "--parameters",
    callback=_parameters,
    metavar="COUNT",
    help="Number of parameters, such as 9B. [default: from the weights or the configuration]",
)
@click.option(
    "--precision",
    type=click.Choice(sorted(BYTES)),
    help="Precision of the served weights. [default: as stored]",
)
@click.option(
    "--kv-precision",
    type=click.Choice(["bf16", "fp8", "fp16", "fp32"]),
    help="Precision of the KV cache. [default: the model's, bf16 if weights are quantized]",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Tokens of prompt and completion together. [default: the model's maximum]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Concurrent requests of that length.",
)
@output_option
def command(
    model: str | None,
    named: str,
    gpu: Gpu | None,
    parameters: int | None,
    precision: str | None,
    kv_precision: str | None,
    context: int | None,
    concurrency: int,
    output: str,
) -> int:
    """Estimate the memory that a model needs, and the GPUs that have enough.

    The model is a directory, its config.json, or a name on a hub (ORG/NAME, ms://ORG/NAME).
    """
    if bool(model) == bool(named):
        raise click.UsageError("give one model: a directory, a config.json, or a name on a hub")
    sized = read(model or named)
    if parameters:
        sized = Sized(sized.shape.with_parameters(parameters), "--parameters")
    shape = sized.shape
    load = Load(
        precision=precision or shape.served_precision,
        kv_precision=kv_precision or shape.kv_precision,
        context=context or shape.context,
        concurrency=concurrency,
    )
    if load.context > shape.context:
        message = f"--context {load.context} exceeds the model's maximum of {shape.context} tokens"
        raise click.UsageError(message)
    found = fits_on(gpu, shape, load) if gpu else fits(shape, load)
    if output == "json":
        print_json(_page(sized, load, found))
    else:
        _print(sized, load, found, gpu)
    return 0


def read(model: str) -> Sized:
    """Return the shape of a model here or on a hub. Raises ClickException."""
    path, where = Path(model).expanduser(), location_of(model)
    try:
        if path.exists() or where.scheme == PATH or model.endswith(".json"):
            return read_local(path)
        if where.scheme in HUBS:
            return read_from_a_hub(model)
    except FileNotFoundError as error:
        raise click.ClickException(f"{model}: {error.filename or path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"{model}: {error}") from error
    raise click.ClickException(
        f"{model}: {where.scheme}:// is not read for sizes; give a name on a hub, or a directory "
        "(`autoglm pull` makes one)"
    )


def _page(sized: Sized, load: Load, found: list[Fit]) -> dict[str, Any]:
    shape, needed, best = sized.shape, need(sized.shape, load), best_of(found)
    count = (best.tensor_parallel or 0) if best else 0
    return {
        "modelType": shape.kind,
        "parameters": shape.parameters,
        **asdict(load),
        "precision": load.precision or shape.precision,
        "bytes": {**asdict(needed), "total": needed.total},
        "basis": _basis(sized, load),
        "gpus": [
            {
                "name": fit.gpu.name,
                "tensorParallel": fit.tensor_parallel,
                "usedBytes": fit.used,
                "concurrency": fit.concurrency,
            }
            for fit in found
        ],
        "advice": best and {"gpu": best.gpu.name, **asdict(host(shape, count))},
    }


def _basis(sized: Sized, load: Load) -> dict[str, str]:
    """Return what each part of the memory is taken from."""
    shape, is_known = sized.shape, sized.shape.kind in CHECKED
    computed = f"computed from {_CONFIGURED}" if is_known else "estimated as a Llama's"
    weights = f"counted in {sized.source}" if sized.source else computed
    if sized.source == "--parameters":
        weights = "as given"
    if load.precision and load.precision != shape.precision:
        weights += f", stored as {shape.precision}"
    cache = "none: an encoder" if shape.is_encoder else computed
    return {"weights": weights, "kv_cache": cache, "runtime": "estimated"}


def _print(sized: Sized, load: Load, found: list[Fit], gpu: Gpu | None) -> None:
    shape, needed, basis = sized.shape, need(sized.shape, load), _basis(sized, load)
    count = shape.parameters
    parameters = f"{count / 1e9:.2f} billion" if count >= 10**7 else f"{count:,}"
    click.echo(f"{parameters} parameters, {load.concurrency} requests of {load.context} tokens\n")
    runtime = needed.total - needed.weights - needed.kv_cache
    token = f"{load.kv_precision}, {needed.kv_token / 1024:.4g} KiB a token"
    rows = [
        (f"weights ({load.precision or shape.precision})", needed.weights, basis["weights"]),
        (f"KV cache ({token})", needed.kv_cache, basis["kv_cache"]),
        ("runtime, per GPU", runtime, basis["runtime"]),
        ("total", needed.total, ""),
    ]
    print_table(["ONE REPLICA", "MEMORY", "BASIS"], [(n, _size(size), b) for n, size, b in rows])
    click.echo("")
    if found:
        print_table(["GPU", "COUNT", "MEMORY USED", "MAX REQUESTS"], [_row(fit) for fit in found])
        click.echo("")
    if (best := best_of(found)) is None:
        print_wrapped(
            f"Not enough memory on 8 GPUs of {f'type {gpu.name}' if gpu else 'any type'}. Lower "
            "--precision, --context or --concurrency, or distribute the model with "
            "spec.engine.parallelism.pipeline."
        )
        return
    _print_advice(shape, load, best, needed.total)
    if BYTES[load.kv_precision] > 1 and needed.kv_cache:
        saved = needed.kv_cache - need(shape, replace(load, kv_precision="fp8")).kv_cache
        print_wrapped(
            f"quantization.kvCacheDtype: fp8 saves {_size(saved)} at some loss of quality."
        )


def _row(fit: Fit) -> tuple[object, ...]:
    if fit.tensor_parallel is None:
        return (fit.gpu.name, "-", "too small", "-")
    used = f"{fit.used / (fit.gpu.gib * GIB):.0%}"
    return (fit.gpu.name, fit.tensor_parallel, used, fit.concurrency or "-")


def _print_advice(shape: Shape, load: Load, best: Fit, total: float) -> None:
    count = best.tensor_parallel or 1
    pod = host(shape, count)
    click.echo(f"One replica on {best.gpu.name} or larger:\n")
    print_wrapped(f"model: {{maxModelLen: {load.context}}}", "  ")
    print_wrapped(
        f"engine: {{maxNumSeqs: {load.concurrency}, gpuMemoryUtilization: {UTILIZATION}, "
        f"parallelism: {{tensor: {count}}}}}",
        "  ",
    )
    print_wrapped(
        f"resources: {{requests: {{cpu: {pod.cpu}, memory: {-int(-pod.memory // GIB)}Gi}}, "
        f"limits: {{{best.gpu.resource}: {count}}}}}",
        "  ",
    )
    click.echo("")
    print_wrapped(f"The node needs {_size(pod.disk)} of disk for the weights.")
    print_wrapped(
        f"Without a GPU, vLLM for CPUs needs {_size(total)} of memory, and is much slower."
    )


def _size(size: float) -> str:
    return f"{size / GIB:.4g} GiB" if size >= GIB / 10 else f"{size / 2**20:.3g} MiB"
