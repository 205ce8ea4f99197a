"""Checkpoints of a few KiB whose weights vLLM makes up (`load_format=dummy`), by architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[2] / "examples/tiny-glm/model"
DUMMY = ("--engine-arg", "load_format=dummy")
"""Options of a pod that serves one."""
_WHISPER_TOKENS = (
    *("<|startoftranscript|>", "<|endoftext|>", "<|prev|>", "<|en|>", "<|de|>"),
    *("<|transcribe|>", "<|translate|>", "<|notimestamps|>"),
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

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_WHISPER_TOKENS)})
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


def _save(directory: Path, config: Any, architecture: str, tokenizer: Any) -> Path:
    config.architectures, config.dtype = [architecture], "bfloat16"
    config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
