"""The command line that vLLM's own parser reads, from our options.

Decides names and order only; values and defaults are vLLM's to judge. Called by `launch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from autoglm.inference.engine import EngineOptions

# Options of vLLM that EngineOptions has a field for.
_OWN = {
    "model": "model",
    "served_model_name": "served_name and aliases",
    "tokenizer": "tokenizer",
    "revision": "revision",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "tensor_parallel_size": "tensor_parallel_size",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "allowed_media_domains": "allowed_media_domains",
}


def command_line(options: EngineOptions) -> list[str]:
    """Return arguments for vLLM's parser. Raises ValueError for an option that is given twice."""
    extra = given_options(options)
    if twice := sorted(_OWN.keys() & extra.keys()):
        raise ValueError("; ".join(f"engine_args.{n}: set {_OWN[n]} instead" for n in twice))
    return list(_arguments(_named(options) | extra))


def given_options(options: EngineOptions) -> dict[str, object]:
    """Return vLLM's own options that were given, by name in snake case."""
    return {name.lstrip("-").replace("-", "_"): v for name, v in options.engine_args.items()}


def _named(options: EngineOptions) -> dict[str, object]:
    names = [options.served_name or options.model, *options.aliases]
    shared = {name: getattr(options, name) for name in _OWN if name != "served_model_name"}
    shared["allowed_media_domains"] = options.allowed_media_domains or None
    return shared | {"served_model_name": names}


def _arguments(settings: Mapping[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        flag = name.replace("_", "-")
        match value:
            case None:
                continue
            case True:
                yield f"--{flag}"
            case False:
                yield f"--no-{flag}"
            case list() | tuple():
                yield f"--{flag}"
                yield from map(_text, value)
            case _:
                yield f"--{flag}={_text(value)}"


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
