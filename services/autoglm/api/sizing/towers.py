"""Counts the parameters of what reads images and audio, and of encoders of text. Pure."""

from __future__ import annotations

from autoglm.api.sizing.fields import Fields

_GATED_TOWERS = ("qwen2_5_vl", "glm4v", "glm4v_moe", "pixtral", "glm_ocr", "mistral3")
ENCODERS = frozenset(
    name
    for line in (
        "bert roberta xlm-roberta camembert distilbert mpnet electra modernbert nomic_bert",
        "deberta deberta-v2 new gte eurobert ernie xlm-roberta-xl",
    )
    for name in line.split()
)
_WITHOUT_POSITIONS = ("modernbert", "nomic_bert", "new", "gte", "eurobert", "deberta-v2")
_GATED_ENCODERS = ("modernbert", "nomic_bert", "new", "gte", "eurobert")


def encoder_of(text: Fields) -> tuple[int, int]:
    """Return the parameters in matrices of layers, and the rest, of an encoder of text."""
    hidden = text.number("hidden_size", "n_embd", "dim")
    inner = text.number("intermediate_size", "n_inner", "hidden_dim", default=4 * hidden)
    layers = text.number("num_hidden_layers", "n_layer", "n_layers")
    gated = 3 if text.kind in _GATED_ENCODERS else 2
    table = text.number("vocab_size") * hidden
    if text.kind not in _WITHOUT_POSITIONS:
        table += text.number("max_position_embeddings") * hidden
    table += text.count("type_vocab_size") * hidden
    biases = 0 if text.kind in _GATED_ENCODERS else 9 * hidden + inner
    pooler = hidden * hidden if text.kind in ("bert", "roberta", "xlm-roberta") else 0
    return layers * (4 * hidden**2 + gated * hidden * inner), table + pooler + layers * biases


def tower_of(config: Fields, hidden: int) -> int:
    """Return the parameters of the vision and audio parts; `hidden` is the width of the text."""
    vision = config.part("vision_config", "visual")
    audio = config.part("audio_config")
    total = _vision(config, vision, hidden) if vision else 0
    return total + (_audio(audio, hidden) if audio else 0)


def _vision(config: Fields, vision: Fields, text_width: int) -> int:
    width = vision.number("embed_dim" if config.kind == "qwen2_vl" else "hidden_size")
    layers = vision.number("depth", "num_hidden_layers", "layers")
    inner = _inner(config, vision, width)
    gated = 3 if config.kind in _GATED_TOWERS or vision.kind in _GATED_TOWERS else 2
    patch = vision.number("patch_size", default=14)
    channels = vision.number("in_channels", "num_channels", "in_chans", default=3)
    frames = vision.number("temporal_patch_size", default=1)
    blocks = layers * (4 * width**2 + gated * width * inner + 9 * width + inner)
    patches = channels * frames * patch**2 * width
    return (
        blocks
        + patches
        + _positions(vision, width, patch)
        + _projector(config, vision, width, text_width)
    )


def _inner(config: Fields, vision: Fields, width: int) -> int:
    if config.kind in ("glm4v", "glm4v_moe"):
        return vision.number("out_hidden_size")
    ratio = vision.get("mlp_ratio")
    default = int(width * ratio) if isinstance(ratio, int | float) else 4 * width
    return vision.number("intermediate_size", default=default)


def _positions(vision: Fields, width: int, patch: int) -> int:
    given = vision.count("num_position_embeddings")
    if given:
        return given * width
    # Rotary embeddings have no parameters.
    if (
        vision.get("spatial_merge_size")
        and not vision.has("image_size")
        or vision.kind == "pixtral"
    ):
        return 0
    side = vision.number("image_size", default=0, least=0) // patch
    return side * side * width


def _projector(config: Fields, vision: Fields, width: int, text: int) -> int:
    merge = vision.number(
        "spatial_merge_size", default=config.number("spatial_merge_size", default=1)
    )
    merged = width * merge**2
    match config.kind:
        case "qwen2_vl" | "qwen2_5_vl":
            return merged**2 + merged * text
        case "qwen3_vl" | "qwen3_vl_moe" | "qwen3_5" | "qwen3_5_moe":
            mergers = 1 + len(vision.items("deepstack_visual_indexes"))
            return mergers * (merged**2 + merged * vision.number("out_hidden_size"))
        case "glm4v" | "glm4v_moe":
            out, inner = vision.number("out_hidden_size"), vision.number("intermediate_size")
            return merged * out + out * out + 3 * out * inner
        case "gemma3" | "paligemma" | "gemma4":
            return width * text
        case "mistral3":
            return merged * width + width * text + text * text
        case "internvl" | "internvl_chat":
            return 4 * width * text + text * text
        case "llama4":
            inner, out = vision.number("projector_input_dim"), vision.number("projector_output_dim")
            return (
                vision.number("intermediate_size") * inner
                + out * out
                + vision.number("vision_output_dim") * text
            )
        case _:
            return width * text + text * text


def _audio(audio: Fields, text_width: int) -> int:
    """Return the parameters of an encoder like Whisper's, and its projector."""
    if not audio.get("d_model"):
        return 0
    return whisper_encoder(audio) + audio.number("d_model") * text_width


def whisper_encoder(audio: Fields) -> int:
    width, inner = audio.number("d_model"), audio.number("encoder_ffn_dim")
    convolutions = 3 * width * (audio.number("num_mel_bins", default=128) + width)
    positions = audio.number("max_source_positions", default=1500) * width
    layers = audio.number("encoder_layers") * (4 * width**2 + 2 * width * inner + 8 * width + inner)
    return layers + convolutions + positions


def whisper_decoder(config: Fields) -> tuple[int, int]:
    """Return the parameters in matrices of layers, and the rest, of a decoder like Whisper's."""
    width, inner = config.number("d_model"), config.number("decoder_ffn_dim")
    layers = config.number("decoder_layers")
    table = config.number("vocab_size") + config.number("max_target_positions")
    return layers * (8 * width**2 + 2 * width * inner), table * width
