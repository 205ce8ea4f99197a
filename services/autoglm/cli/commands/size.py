"""`autoglm size`: estimates the memory that a model needs, and the GPUs that have enough.

Reads the configuration of a checkpoint and the headers of its weights; never loads weights.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from autoglm.api.sizing import (
    BYTES,
    GIB,
    UTILIZATION,
    Fit,
    Load,
    Shape,
    UnknownModel,
    counted,
    fits,
    host,
    need,
    shape_of,
)
from autoglm.cli.options import examples, output_option
from autoglm.cli.output import print_json, print_table

# A header lists the tensors; those of the largest models have some hundred kilobytes.
_MOST_HEADER_BYTES = 100 * 2**20
_UNITS = {"M": 10**6, "B": 10**9, "T": 10**12, "": 1}


def _parameters(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MBT]?)", (text or "").upper())
    if text is None:
        return None
    if match is None:
        raise click.BadParameter(f"{text!r} is not a number of parameters such as 9B")
    return int(float(match[1]) * _UNITS[match[2]])


@click.command(
    epilog=examples(
        "autoglm size --model ./GLM-4-9B-0414",
        "autoglm size --model ./config.json --parameters 9.4B --precision int8",
        "autoglm size --model ./GLM-4-9B-0414 --context 16384 --concurrency 32 --output json",
    )
)
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Directory of a checkpoint, or its config.json.",
)
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
    model: Path,
    parameters: int | None,
    precision: str | None,
    kv_precision: str | None,
    context: int | None,
    concurrency: int,
    output: str,
) -> int:
    """Estimate the memory that a model needs, and the GPUs that have enough."""
    shape = read_shape(model, parameters)
    load = Load(
        precision=precision or shape.precision,
        kv_precision=kv_precision or (shape.precision if BYTES[shape.precision] >= 2 else "bf16"),
        context=context or shape.context,
        concurrency=concurrency,
    )
    if load.context > shape.context:
        message = f"--context {load.context} exceeds the model's maximum of {shape.context} tokens"
        raise click.UsageError(message)
    if output == "text":
        _print(shape, load)
        return 0
    needed, found = need(shape, load), fits(shape, load)
    best = _best(found)
    gpus = best.tensor_parallel or 0 if best else 0
    value = {
        "parameters": shape.parameters,
        **asdict(load),
        "bytes": {**asdict(needed), "total": needed.total},
        "gpus": [
            {
                "name": fit.gpu.name,
                "tensorParallel": fit.tensor_parallel,
                "usedBytes": fit.used,
                "concurrency": fit.concurrency,
            }
            for fit in found
        ],
        "advice": best and {"gpu": best.gpu.name, **asdict(host(shape, load, gpus))},
    }
    print_json(value)
    return 0


def read_shape(model: Path, parameters: int | None) -> Shape:
    """Return the shape of a model by its directory or its config.json. Raises ClickException."""
    path = model / "config.json" if model.is_dir() else model
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UnknownModel("config.json is not a mapping")
        return shape_of(config, parameters or _counted(path.parent))
    except FileNotFoundError as error:
        advice = f"`hf download {model} config.json --local-dir DIR` downloads it from the hub"
        raise click.ClickException(f"--model {model}: {path} not found; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"--model {model}: {error}") from error


def _counted(directory: Path) -> int | None:
    """Return the number of parameters in the weights, None if they are absent or packed."""
    files = list(directory.glob("*.safetensors"))
    headers = [_header(file) for file in files]
    kinds = {
        entry.get("dtype")
        for header in headers
        for name, entry in header.items()
        if name != "__metadata__"
    }
    # The shape of packed numbers is not the number of parameters.
    if not files or not kinds <= {"F64", "F32", "F16", "BF16", "F8_E4M3"}:
        return None
    return sum(map(counted, headers))


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        start = stream.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise ValueError(f"{file.name} is not a safetensors file; download it again")
        header = json.loads(stream.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is not a safetensors file; download it again")
    return header


def _best(found: list[Fit]) -> Fit | None:
    """Return the fit with the fewest GPUs, among these the smallest GPU."""
    good = [fit for fit in found if fit.tensor_parallel is not None]
    return min(good, key=lambda fit: (fit.tensor_parallel or 0, fit.gpu.gib), default=None)


def _print(shape: Shape, load: Load) -> None:
    needed, found = need(shape, load), fits(shape, load)
    count = shape.parameters
    parameters = f"{count / 1e9:.2f} billion" if count >= 10**7 else f"{count:,}"
    click.echo(f"{parameters} parameters, {load.concurrency} requests of {load.context} tokens\n")
    rows = [
        (f"weights ({load.precision})", _gib(needed.weights)),
        (f"KV cache ({load.kv_precision}, {needed.kv_token / 1024:.4g} KiB a token)",
         _gib(needed.kv_cache)),
        ("runtime, per GPU", _gib(needed.total - needed.weights - needed.kv_cache)),
        ("total", _gib(needed.total)),
    ]  # fmt: skip
    print_table(["ONE REPLICA", "MEMORY"], rows)
    click.echo("")
    gpus = [
        (
            fit.gpu.name,
            fit.tensor_parallel,
            f"{fit.used / (fit.gpu.gib * GIB):.0%}",
            fit.concurrency,
        )
        if fit.tensor_parallel is not None
        else (fit.gpu.name, "-", "too small", "-")
        for fit in found
    ]
    print_table(["GPU", "COUNT", "MEMORY USED", "MAX REQUESTS"], gpus)
    click.echo("")
    if (best := _best(found)) is None:
        click.echo(
            "Not enough memory on 8 GPUs of any type. Lower --precision, --context or "
            "--concurrency, or distribute the model with spec.engine.parallelism.pipeline."
        )
        return
    count = best.tensor_parallel or 1
    pod = host(shape, load, count)
    click.echo(f"One replica on {best.gpu.name} or larger:\n")
    click.echo(f"  model: {{maxModelLen: {load.context}}}")
    click.echo(
        f"  engine: {{maxNumSeqs: {load.concurrency}, gpuMemoryUtilization: {UTILIZATION}, "
        f"parallelism: {{tensor: {count}}}}}"
    )
    click.echo(
        f"  resources: {{requests: {{cpu: {pod.cpu}, memory: {-int(-pod.memory // GIB)}Gi}}, "
        f"limits: {{nvidia.com/gpu: {count}}}}}\n"
    )
    click.echo(f"The node needs {_gib(pod.disk)} of disk for the weights.")
    total = _gib(needed.total)
    click.echo(f"Without a GPU, vLLM for CPUs needs {total} of memory, and is much slower.")
    if BYTES[load.kv_precision] > 1:
        saved = needed.kv_cache - need(shape, replace(load, kv_precision="fp8")).kv_cache
        click.echo(f"quantization.kvCacheDtype: fp8 saves {_gib(saved)} at some loss of quality.")


def _gib(size: float) -> str:
    return f"{size / GIB:.4g} GiB" if size >= GIB / 100 else f"{size / 2**20:.3g} MiB"
