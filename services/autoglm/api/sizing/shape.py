"""The dimensions of a model that determine its memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 2**30
BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5}
"""Bytes per number by precision."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters that are stored alike."""

    parameters: int
    stored: float
    """Bytes of a parameter in the checkpoint, with scales and zero points."""
    is_linear: bool
    """Whether a quantization while loading applies; embeddings, norms and towers keep 16 bits."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Memory of a layer for each request."""

    numbers: int
    """Numbers in the keys and values of one token."""
    window: int | None = None
    """Most tokens that are kept; None keeps all."""
    state: int = 0
    """Bytes that do not grow with the tokens: recurrent states, keys and values of an encoder."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a model that determine its memory."""

    weights: tuple[Weights, ...]
    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    """1 if each GPU keeps the whole cache (latent attention)."""
    precision: str
    """Precision of the stored weights."""
    context: int
    kind: str = ""
    """The type of the model in its configuration, such as qwen3."""
    is_encoder: bool = False
    """Whether it reads a text at once, and has no KV cache."""

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.weights)

    @property
    def served_precision(self) -> str | None:
        """Return the precision in which vLLM loads the weights by default; None: as stored."""
        if self.precision != "fp32":
            return None
        return "fp16" if self.is_encoder else "bf16"

    @property
    def kv_precision(self) -> str:
        """Return the precision of the KV cache by default."""
        served = self.served_precision or self.precision
        return served if served in ("fp16", "bf16") else "bf16"

    def weight_bytes(self, precision: str | None = None) -> float:
        """Return the bytes of the weights in a precision; None: as stored."""
        if precision is None:
            return sum(group.parameters * group.stored for group in self.weights)
        size = BYTES[precision]
        return sum(
            group.parameters * (size if group.is_linear else max(size, 2.0))
            for group in self.weights
        )

    def kv_bytes(self, tokens: int, precision: str) -> float:
        """Return the KV cache of a request of `tokens` tokens, in bytes."""
        numbers = sum(layer.numbers * min(tokens, layer.window or tokens) for layer in self.layers)
        return numbers * BYTES[precision] + sum(layer.state for layer in self.layers)

    def with_parameters(self, parameters: int) -> Shape:
        """Return the shape with so many parameters, in the same proportions."""
        share = parameters / self.parameters
        scaled = (replace(w, parameters=round(w.parameters * share)) for w in self.weights)
        return replace(self, weights=tuple(scaled))

    def with_stored_bytes(self, size: int) -> Shape:
        """Return the shape with weights that take so many bytes in the checkpoint."""
        share = size / self.weight_bytes()
        scaled = (replace(w, stored=w.stored * share) for w in self.weights)
        return replace(self, weights=tuple(scaled))
