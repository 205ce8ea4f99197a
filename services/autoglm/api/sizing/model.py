"""Reads the shape of a model from its config.json. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.api.sizing.attention import (
    cache_of,
    heads_of,
    hidden_of,
    is_latent,
    kinds_of,
    kv_heads_of,
)
from autoglm.api.sizing.decoder import decoder_of
from autoglm.api.sizing.fields import Fields
from autoglm.api.sizing.shape import Layer, Shape, Weights
from autoglm.api.sizing.storage import Storage, storage_of
from autoglm.api.sizing.towers import (
    ENCODERS,
    encoder_of,
    tower_of,
    whisper_decoder,
    whisper_encoder,
)

CHECKED = frozenset(
    name
    for line in (
        "bert cohere2 deepseek_v2 deepseek_v3 ernie4_5_moe exaone4 falcon gemma2 gemma3",
        "gemma3_text glm4 glm4_moe glm4v glm_moe_dsa gpt2 gpt_neox gpt_oss granite internvl",
        "llama llama4 llava minimax_m2 mistral mistral3 mixtral modernbert olmo3 olmoe opt phi3",
        "phimoe qwen2 qwen2_5_vl qwen2_moe qwen2_vl qwen3 qwen3_5_moe qwen3_moe qwen3_next",
        "qwen3_vl smollm3 stablelm starcoder2 whisper xlm-roberta",
    )
    for name in line.split()
)
"""Types of models of which tests compare one with transformers' own classes."""
# Multimodal models have the language model's configuration in a field of its own.
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape of a model by its config.json.

    Raises UnknownModel with the missing field.
    """
    top = Fields(config)
    # A part without fields of its own has those of the whole, as older checkpoints do.
    text = top.part(*_TEXT)
    text = (text.part(*_TEXT) or text) if text else top
    storage = storage_of(top, text)
    if text.kind == "whisper":
        return _whisper(text, storage)
    if text.kind in ENCODERS or text.get("use_bidirectional_attention") is True:
        return _encoder(text, storage)
    return _decoder(top, text, storage)


def _decoder(top: Fields, text: Fields, storage: Storage) -> Shape:
    counted = decoder_of(text, _is_tied(top, text))
    tower = tower_of(top, hidden_of(text))
    return Shape(
        weights=(
            Weights(counted.linear, storage.linear, True),
            Weights(counted.experts, storage.experts, True),
            Weights(counted.rest + tower, storage.rest, False),
        ),
        layers=tuple(cache_of(text, kind) for kind in kinds_of(text)),
        heads=heads_of(text),
        kv_heads=1 if is_latent(text) else kv_heads_of(text),
        precision=storage.precision,
        context=text.number("max_position_embeddings", "seq_length", "n_positions", "max_seq_len"),
        kind=top.kind,
    )


def _encoder(text: Fields, storage: Storage) -> Shape:
    if text.kind in ENCODERS:
        linear, rest = encoder_of(text)
    else:
        counted = decoder_of(text, is_tied=True)
        linear, rest = counted.linear, counted.rest
    return Shape(
        weights=(Weights(linear, storage.linear, True), Weights(rest, storage.rest, False)),
        layers=(),
        heads=text.number("num_attention_heads", "n_head", "n_heads"),
        kv_heads=1,
        precision=storage.precision,
        context=text.number("max_position_embeddings", "n_positions"),
        kind=text.kind,
        is_encoder=True,
    )


def _whisper(config: Fields, storage: Storage) -> Shape:
    linear, rest = whisper_decoder(config)
    width, count = config.number("d_model"), config.number("decoder_layers")
    # Keys and values of the encoder's output, in 16 bits, stay as long as the request.
    state = 2 * 2 * width * config.number("max_source_positions")
    return Shape(
        weights=(
            Weights(linear, storage.linear, True),
            Weights(rest + whisper_encoder(config), storage.rest, False),
        ),
        layers=(Layer(2 * width, state=state),) * count,
        heads=config.number("decoder_attention_heads"),
        kv_heads=config.number("decoder_attention_heads"),
        precision=storage.precision,
        context=config.number("max_target_positions"),
        kind=config.kind,
    )


def _is_tied(top: Fields, text: Fields) -> bool:
    """Return whether the output matrix is that of the embeddings."""
    for fields in (top, text):
        if fields.has("tie_word_embeddings"):
            return bool(fields.get("tie_word_embeddings"))
    return bool(top.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
