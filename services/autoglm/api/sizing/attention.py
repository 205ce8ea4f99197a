"""The kinds of layers of a decoder: their parameters, and the KV cache of a token. Pure."""

from __future__ import annotations

from autoglm.api.sizing.fields import Fields, UnknownModel
from autoglm.api.sizing.shape import Layer

_MOST_LAYERS = 10_000
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
# By type: every so many layers one has full attention, where the configuration lists no layers.
_PERIODS = {
    **dict.fromkeys(("gemma2", "gpt_oss"), 2),
    **dict.fromkeys(("cohere2", "olmo3", "exaone4", "afmoe"), 4),
    **dict.fromkeys(("gemma3n_text",), 5),
    **dict.fromkeys(("gemma3", "gemma3_text", "gemma4_text"), 6),
}
_HYBRID_PERIODS = dict.fromkeys(
    ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_moe"), 4
)
# Query, key, value in one matrix of all heads; keys and values of one head by default.
_SHARED_KV = ("falcon", "gpt_bigcode")
_GATED_QUERIES = tuple(_HYBRID_PERIODS)
_STATE_BYTES = 4
_INDEX_BYTES = 132


def kinds_of(text: Fields) -> list[str]:
    """Return the kind of each layer's attention."""
    count = text.number("num_hidden_layers", "num_layers", "n_layer", "n_layers")
    if count > _MOST_LAYERS:
        raise UnknownModel(f"config.json: {count} layers, at most {_MOST_LAYERS} are supported")
    listed = text.items("layer_types") or text.items("layers_block_type")
    if len(listed) >= count:
        return [str(kind) for kind in listed[:count]]
    if period := _HYBRID_PERIODS.get(text.kind):
        period = text.number("full_attention_interval", default=period)
        return [LINEAR if (i + 1) % period else FULL for i in range(count)]
    if text.kind == "llama4_text":
        return [_of_llama4(text, i) for i in range(count)]
    # The window of Qwen's models begins above these layers, where it is in use at all.
    if text.get("use_sliding_window") is False or not text.get("sliding_window"):
        return [FULL] * count
    if text.get("use_sliding_window") and text.get("max_window_layers") is not None:
        above = text.count("max_window_layers")
        return [SLIDING if i >= above else FULL for i in range(count)]
    period = _period(text)
    return [SLIDING if period == 0 or (i + 1) % period else FULL for i in range(count)]


def _period(text: Fields) -> int:
    """Return how often a layer has full attention; 0: none has."""
    given = text.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(given, str):
        return len(given)
    if isinstance(given, int) and given > 0:
        return given
    return _PERIODS.get(text.kind, 0)


def _of_llama4(text: Fields, index: int) -> str:
    listed = text.items("no_rope_layers")
    interval = text.number("no_rope_layer_interval", default=4)
    is_chunked = listed[index] if index < len(listed) else (index + 1) % interval
    return "chunked_attention" if is_chunked else FULL


def heads_of(text: Fields) -> int:
    return text.number("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads")


def kv_heads_of(text: Fields) -> int:
    heads = heads_of(text)
    if text.kind == "falcon" and not text.get("new_decoder_architecture"):
        return 1 if text.get("multi_query") is not False else heads
    if text.get("multi_query_attention") is False:
        return heads
    if text.kind in _SHARED_KV and text.get("multi_query") is not False:
        return text.number("num_kv_heads", default=1)
    names = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads")
    return text.number(*names, default=heads)


def head_dim_of(text: Fields) -> int:
    width = hidden_of(text) // heads_of(text)
    return text.number("head_dim", "kv_channels", default=max(1, width))


def hidden_of(text: Fields) -> int:
    return text.number("hidden_size", "n_embd", "d_model")


def is_latent(text: Fields) -> bool:
    return bool(text.get("kv_lora_rank"))


def cache_of(text: Fields, kind: str) -> Layer:
    """Return the cache of a layer."""
    if kind == LINEAR:
        return Layer(0, state=_recurrent_state(text))
    if kind in ("conv", "mamba", "moe", "mlp"):
        return Layer(0)
    if is_latent(text):
        numbers = text.number("kv_lora_rank") + text.count("qk_rope_head_dim")
        # The indexer of sparse attention keeps 8-bit keys and a scale beside a 16-bit cache.
        indexed = _INDEX_BYTES // 2 if text.get("index_n_heads") else 0
        return Layer(numbers + indexed)
    keys = head_dim_of(text)
    values = text.number("v_head_dim", default=keys)
    numbers = kv_heads_of(text) * (keys + values)
    if kind == SLIDING and text.get("sliding_window"):
        return Layer(numbers, text.number("sliding_window"))
    if kind == "chunked_attention":
        return Layer(numbers, text.number("attention_chunk_size", default=8192))
    return Layer(numbers)


def parameters_of(text: Fields, kind: str) -> int:
    """Return the parameters of a layer's attention."""
    hidden = hidden_of(text)
    if kind == LINEAR:
        return _recurrent(text)
    if is_latent(text):
        return _latent(text)
    keys, heads, kv_heads = head_dim_of(text), heads_of(text), kv_heads_of(text)
    values = text.number("v_head_dim", default=keys)
    queries = 2 if text.kind in _GATED_QUERIES else 1
    return hidden * (heads * (queries * keys + values) + kv_heads * (keys + values))


def _latent(text: Fields) -> int:
    hidden, heads, rank = hidden_of(text), heads_of(text), text.number("kv_lora_rank")
    rope, plain = text.count("qk_rope_head_dim"), text.number("qk_nope_head_dim")
    values = text.number("v_head_dim", default=plain)
    low = text.count("q_lora_rank")
    queries = (hidden + heads * (plain + rope)) * low if low else hidden * heads * (plain + rope)
    total = queries + hidden * (rank + rope) + rank * heads * (plain + values)
    total += heads * values * hidden
    if index := text.count("index_n_heads"):
        width = text.number("index_head_dim")
        total += low * index * width + hidden * width + hidden * index
    return total


def _recurrent(text: Fields) -> int:
    """Return the parameters of a gated delta net."""
    hidden = hidden_of(text)
    keys = text.number("linear_num_key_heads") * text.number("linear_key_head_dim")
    heads = text.number("linear_num_value_heads")
    values = heads * text.number("linear_value_head_dim")
    convolution = text.number("linear_conv_kernel_dim") * (2 * keys + values)
    return hidden * (2 * keys + 2 * values + 2 * heads) + convolution + values * hidden


def _recurrent_state(text: Fields) -> int:
    keys, width = text.count("linear_num_key_heads"), text.count("linear_key_head_dim")
    values = text.count("linear_num_value_heads") * text.count("linear_value_head_dim")
    steps = max(0, text.count("linear_conv_kernel_dim") - 1)
    return _STATE_BYTES * values * width + 2 * steps * (2 * keys * width + values)
