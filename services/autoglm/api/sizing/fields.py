"""Reads fields of a model's config.json, with the defaults of its type.

Hubs omit values that equal the defaults of the model's configuration class, so `defaults.json` has
those of the types that vLLM loads. scripts/generate_model_facts writes it from transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

_MOST = 10**9
NAMES = frozenset(
    name
    for line in (
        "attention_bias audio_config attention_chunk_size d_model decoder_attention_heads",
        "decoder_ffn_dim decoder_layers decoder_sparse_step depth embed_dim",
        "encoder_attention_heads encoder_ffn_dim encoder_layers expert_layer_offset",
        "expert_layer_period first_k_dense_replace global_attn_every_n_layers global_head_dim",
        "head_dim hidden_size hidden_size_per_layer_input image_size in_channels index_head_dim",
        "index_n_heads interleave_moe_layer_step intermediate_size intermediate_size_mlp",
        "kv_lora_rank linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads",
        "linear_num_value_heads linear_value_head_dim max_position_embeddings",
        "max_source_positions max_target_positions max_window_layers mlp_ratio",
        "moe_intermediate_size moe_layer_end_index moe_layer_freq moe_layer_interval",
        "moe_layer_start_index moe_num_shared_experts n_routed_experts n_shared_experts",
        "new_decoder_architecture no_rope_layer_interval num_attention_heads num_channels",
        "num_dense_layers num_experts num_global_key_value_heads num_heads num_hidden_layers",
        "num_key_value_heads num_local_experts moe_num_experts num_mel_bins",
        "num_position_embeddings num_shared_experts out_hidden_size parallel_attn patch_size",
        "pooler projector_input_dim projector_output_dim q_lora_rank qk_nope_head_dim",
        "qk_rope_head_dim shared_expert_intermediate_size shared_intermediate_size",
        "sliding_window sliding_window_pattern spatial_merge_size temporal_patch_size",
        "tie_word_embeddings type_vocab_size use_sliding_window v_head_dim vision_output_dim",
        "vision_use_head vocab_size vocab_size_per_layer_input",
    )
    for name in line.split()
)
"""Fields with defaults in defaults.json."""


class UnknownModel(ValueError):
    """Raised for a config.json without the fields that the estimate needs."""


@cache
def defaults() -> Mapping[str, Mapping[str, Any]]:
    """Return, by model type, the defaults of its fields (`fields`) and its `parts`."""
    text = resources.files(__package__).joinpath("defaults.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


class Fields:
    """Fields of a configuration or of a part of it. Missing ones have the defaults of its type."""

    def __init__(self, given: Mapping[str, Any], kind: str = "") -> None:
        self._given = given
        self.kind = str(given.get("model_type") or kind)
        known = defaults().get(self.kind, {})
        self._defaults: Mapping[str, Any] = known.get("fields", {})
        self._parts: Mapping[str, str] = known.get("parts", {})

    def get(self, *names: str) -> Any:
        """Return the first of the fields that is given, or else has a default; None otherwise."""
        for name in names:
            if self._given.get(name) is not None:
                return self._given[name]
        if any(name in self._given for name in names):
            return None
        return next((self._defaults[name] for name in names if name in self._defaults), None)

    def has(self, name: str) -> bool:
        """Return whether the field is given and not null."""
        return self._given.get(name) is not None

    def number(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number. Raises UnknownModel where there is none."""
        value = self.get(*names)
        if value is None:
            if default is not None:
                return default
            raise UnknownModel(f"config.json has no {names[0]}; only language models are supported")
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
            raise UnknownModel(f"config.json: {names[0]} = {value!r} is out of range")
        return value

    def count(self, *names: str) -> int:
        """Return a whole number, 0 where there is none."""
        return self.number(*names, default=0, least=0)

    def items(self, name: str) -> list[Any]:
        """Return a list, empty where there is none."""
        value = self.get(name)
        return value if isinstance(value, list) else []

    def part(self, *names: str) -> Fields | None:
        """Return the first part of these names; None where there is none."""
        for name in names:
            if isinstance(value := self._given.get(name), Mapping):
                return Fields(value, self._parts.get(name, ""))
        return None
