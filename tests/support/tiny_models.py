"""Checkpoints of a few KiB by architecture.

Without weights, which vLLM makes up (`load_format=dummy`), or with random ones (`with_weights`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[2] / "examples/tiny-glm/model"
DUMMY = ("--engine-arg", "load_format=dummy")
"""Options of a pod that serves one."""
_WHISPER_TOKENS = (
    *("<|startoftranscript|>", "<|endoftext|>", "<|prev|>"),
    *("<|transcribe|>", "<|translate|>", "<|notimestamps|>"),
)
_IMAGE_TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def qwen3(directory: Path) -> Path:
    """A text model of an architecture that vLLM reads labels from (`/v1/systemone`)."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    # Labels have to be one token each.
    tokenizer.add_tokens(["yes", "no"])
    config = t.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=4096,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    return _save(directory, config, "Qwen3ForCausalLM", tokenizer)


def whisper(directory: Path) -> Path:
    """A speech-to-text model."""
    import transformers as t
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    languages = [f"<|{code}|>" for code in LANGUAGES]
    special = [*_WHISPER_TOKENS, *languages]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    config = t.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, d_model=64,
        encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_source_positions=1500, max_target_positions=448,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    audio = t.WhisperFeatureExtractor(feature_size=80)
    audio.save_pretrained(directory)
    return _save(directory, config, "WhisperForConditionalGeneration", tokenizer)


def embedder(directory: Path) -> Path:
    """An encoder that makes one vector of a text."""
    import transformers as t

    return _encoder(directory, "XLMRobertaModel", t.XLMRobertaConfig)


def reranker(directory: Path) -> Path:
    """A cross-encoder that scores a pair of texts."""
    import transformers as t

    return _encoder(directory, "XLMRobertaForSequenceClassification", t.XLMRobertaConfig)


def _encoder(directory: Path, architecture: str, config_class: Any) -> Path:
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    config = config_class(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=8194, type_vocab_size=1, num_labels=1,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
        # As in checkpoints of the hub; vLLM reads it, and transformers has no default for it.
        position_embedding_type="absolute",
    )  # fmt: skip
    return _save(directory, config, architecture, tokenizer)


def llava(directory: Path) -> Path:
    """A text model that sees images of 28 by 28 pixels, as four tokens each."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = _IMAGE_TEMPLATE
    image = tokenizer.convert_tokens_to_ids("<image>")
    vision = t.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=32,
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=32768,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_token_id=image,
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=4,
    )  # fmt: skip
    images = t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = t.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=_IMAGE_TEMPLATE,
    )  # fmt: skip
    return _save(directory, config, "LlavaForConditionalGeneration", processor)


def qwen3_adapter(directory: Path) -> Path:
    """A LoRA adapter for `qwen3`, in PEFT's format."""
    import safetensors.torch
    import torch

    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{layer}.lora_A.weight": (8, 64), f"{layer}.lora_B.weight": (64, 8)}
    weights = {name: torch.randn(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    safetensors.torch.save_file(weights, directory / "adapter_model.safetensors")
    return directory


def with_weights(directory: Path) -> Path:
    """Write random weights, the same each time, beside the configuration of a model."""
    import torch
    import transformers as t

    config = t.AutoConfig.from_pretrained(directory)
    [architecture] = config.architectures
    torch.manual_seed(0)
    model = getattr(t, architecture)(config).to(torch.bfloat16)
    model.save_pretrained(directory)
    if architecture.startswith("Llava"):
        _rename(directory / "model.safetensors", "vision_tower.", "vision_tower.vision_model.")
    return directory


def _rename(weights: Path, prefix: str, other: str) -> None:
    """Rename tensors as checkpoints of the hub have them, and vLLM expects them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    renamed = {
        f"{other}{name.removeprefix(prefix)}" if name.startswith(prefix) else name: tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})


def _save(directory: Path, config: Any, architecture: str, tokenizer: Any) -> Path:
    config.architectures, config.dtype = [architecture], "bfloat16"
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
