"""Counts the parameters of a decoder from the fields of its configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.api.sizing.attention import hidden_of, kinds_of, parameters_of
from autoglm.api.sizing.fields import Fields

# Two matrices a layer instead of three, which a gate has.
_UNGATED = frozenset(
    name
    for line in (
        "gpt2 gpt_bigcode gpt_neox gptj opt falcon bloom mpt phi starcoder2 nemotron persimmon",
        "codegen biogpt xglm whisper arcee apertus",
    )
    for name in line.split()
)
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
# The experts' width is `intermediate_size`, and that of dense layers has a field of its own.
_WIDE_EXPERTS = "llama4_text"


@dataclass(frozen=True, slots=True)
class Decoder:
    """Parameters by how they are stored."""

    linear: int
    """In the matrices of attention and dense layers, shared experts included."""
    experts: int
    rest: int
    """In embeddings, the output matrix, routers and norms."""


def decoder_of(text: Fields, is_tied: bool) -> Decoder:
    """Count a decoder. Raises UnknownModel with the missing field."""
    hidden, linear, experts, rest = hidden_of(text), 0, 0, 0
    for index, kind in enumerate(kinds_of(text)):
        linear += parameters_of(text, kind)
        rest += 2 * hidden
        if is_sparse(text, index):
            count, width = text.number(*_EXPERTS), _expert_width(text, index)
            experts += matrices(text) * hidden * width * count
            linear += matrices(text) * hidden * _shared_width(text, width)
            rest += hidden * count
        else:
            linear += matrices(text) * hidden * _dense_width(text)
    return Decoder(linear, experts, rest + _tables(text, is_tied))


def matrices(text: Fields) -> int:
    return 2 if text.kind in _UNGATED else 3


def _tables(text: Fields, is_tied: bool) -> int:
    hidden = hidden_of(text)
    vocabulary = text.number("vocab_size", "padded_vocab_size")
    tables = vocabulary * hidden * (1 if is_tied else 2)
    if text.kind in ("gpt2", "gpt_bigcode", "opt"):
        tables += text.number("max_position_embeddings", "n_positions") * hidden
    # Gemma 3n and 4 have an embedding of each layer.
    if width := text.count("hidden_size_per_layer_input"):
        layers = len(kinds_of(text))
        vocabulary = text.count("vocab_size_per_layer_input")
        tables += layers * width * (vocabulary + 3 * hidden)
    return tables


def is_sparse(text: Fields, index: int) -> bool:
    """Return whether a layer has experts."""
    if not text.get(*_EXPERTS):
        return False
    listed = text.items("mlp_layer_types")
    if index < len(listed):
        return bool(listed[index] != "dense")
    frequencies = text.get("moe_layer_freq")
    if isinstance(frequencies, list) and index < len(frequencies):
        return bool(frequencies[index])
    if index in text.items("mlp_only_layers"):
        return False
    first = max(text.count("first_k_dense_replace"), text.count("num_dense_layers"))
    return index >= max(first, text.count("moe_layer_start_index")) and _is_turn(text, index)


def _is_turn(text: Fields, index: int) -> bool:
    """Return whether a layer has experts where only every so many layers have."""
    if listed := text.items("moe_layers"):
        return index in listed
    last = text.get("moe_layer_end_index")
    if isinstance(last, int) and 0 <= last < index:
        return False
    if period := text.count("expert_layer_period"):
        return (index - text.count("expert_layer_offset")) % period == 0
    names = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")
    step = next((s for name in names if (s := text.count(name))), 1)
    return (index + 1) % step == 0


def _expert_width(text: Fields, index: int) -> int:
    listed = text.items("moe_intermediate_size")
    if index < len(listed) and isinstance(listed[index], int):
        return int(listed[index])
    return text.number("moe_intermediate_size", "intermediate_size")


def _shared_width(text: Fields, width: int) -> int:
    own = text.count("shared_expert_intermediate_size", "shared_intermediate_size")
    if own:
        return own
    if text.kind == _WIDE_EXPERTS:
        return width
    names = ("n_shared_experts", "moe_num_shared_experts", "num_shared_experts")
    return width * text.count(*names, "num_shared_expert")


def _dense_width(text: Fields) -> int:
    if text.kind == _WIDE_EXPERTS:
        return text.number("intermediate_size_mlp")
    names = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "decoder_ffn_dim")
    if text.kind in _UNGATED:
        return text.number(*names, default=4 * hidden_of(text))
    return text.number(*names)
