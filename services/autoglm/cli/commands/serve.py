"""`autoglm serve MODEL`: serves a model without a manifest, by the manifest that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from autoglm.api import InvalidSpec
from autoglm.api.documents import parse_manifest
from autoglm.api.short_form import name_of, to_manifest
from autoglm.api.uri import (
    MODELSCOPE,
    PATH,
    PROCESSES_LOAD,
    for_engine,
    location_of,
    problem_here,
)
from autoglm.cli.commands.up import print_commands, run, run_options
from autoglm.cli.options import examples
from autoglm.common.process import ExitCode
from autoglm.local.up import UpOptions

_PLAIN = ("model", "weights", "checkpoint")


@click.command(
    epilog=examples(
        "autoglm serve examples/tiny-glm/model",
        "autoglm serve Qwen/Qwen3-8B --gpus 1 --max-model-len 16384",
        "autoglm serve -d examples/tiny-glm/model && autoglm chat Hello; autoglm down",
        "autoglm serve hf://zai-org/GLM-4-9B-0414 --quantization fp8 --replicas 2 --name glm-4",
        "autoglm serve ms://Qwen/Qwen3-8B --gpus 1",
        "autoglm serve Qwen/Qwen3-8B --gpus 2 --print-manifest > qwen3-8b.yaml",
    )
)
@click.argument("model")
@click.option("--name", default="", help="Name of the model. [default: from MODEL]")
@click.option("--replicas", default=1, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--gpus",
    type=click.IntRange(1, 64),
    help="GPUs of a replica, which it splits the model over. [default: what the engine finds]",
)
@click.option("--max-model-len", type=click.IntRange(min=1), help="Longest prompt and output.")
@click.option(
    "--quantization",
    default="none",
    show_default=True,
    help="int8, fp8, fp16, bf16, fp32, none, or a method of vLLM.",
)
@click.option("--print-manifest", is_flag=True, help="Print the manifest instead of running it.")
@run_options
def command(
    model: str,
    name: str,
    replicas: int,
    gpus: int | None,
    max_model_len: int | None,
    quantization: str,
    print_manifest: bool,
    options: UpOptions,
    dry_run: bool,
) -> int:
    """Serve MODEL, a path or a hub name (ms://ORG/NAME on ModelScope), by local processes: replicas
    and a gateway.

    Ctrl-C drains and stops all processes; a second one kills them. With -d they run on until
    `autoglm down`.
    """
    uri = uri_of(model)
    short = {"model": uri, "quantization": quantization, "replicas": replicas}
    sizes = {"gpu": gpus, "max_model_len": max_model_len}
    short |= {field: value for field, value in sizes.items() if value is not None}
    try:
        manifest = manifest_of(short, name or served_name_of(uri))
    except InvalidSpec as error:
        click.echo(str(error), err=True)
        return ExitCode.BAD_MANIFEST
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    if print_manifest:
        click.echo(text, nl=False)
        return 0
    options.run_dir.mkdir(parents=True, exist_ok=True)
    file = options.run_dir / f"{manifest['metadata']['name']}.yaml"
    file.write_text(text, encoding="utf-8")
    if dry_run:
        return print_commands([file], options)
    return run([file], options)


def uri_of(model: str) -> str:
    """Return the model's uri in a manifest. Raises BadParameter for one that cannot be loaded.

    A directory becomes an absolute path, since manifests have a directory of their own.
    """
    if Path(model).is_dir():
        return str(Path(model).resolve())
    if location_of(model).scheme == PATH:
        message = f"there is no directory {model}; give {PROCESSES_LOAD}"
        raise click.BadParameter(message, param_hint="MODEL")
    if why := problem_here(model):
        raise click.BadParameter(f"{model}: {why}", param_hint="MODEL")
    return for_engine(model)


def served_name_of(uri: str) -> str:
    """Return the name for requests: the last part, or the directory above for `tiny-glm/model`."""
    where = location_of(uri)
    path = Path(where.repository[0] if where.scheme == MODELSCOPE else uri)
    last = path.parent.name if path.name in _PLAIN and path.parent.name else path.name
    return last.lower() or name_of(uri)


def manifest_of(short: dict[str, Any], served_name: str) -> dict[str, Any]:
    """Return the manifest of a short form. Raises InvalidSpec. Pure.

    Its name is the served one as far as a resource may have it: qwen3-0-6b for qwen3-0.6b.
    """
    manifest = to_manifest(short, name_of(served_name))
    manifest["spec"]["model"]["servedName"] = served_name
    parse_manifest(manifest)
    return manifest
