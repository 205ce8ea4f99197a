"""Labels as paths of tokens in a tree. Pure; called by `labels`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Path = tuple[int, ...]
Logprobs = Mapping[int, float]

# Stands for any token that ends the turn.
END = -1


def branches(paths: Iterable[Path]) -> dict[Path, list[int]]:
    """Return the next tokens of each inner node of the tree that `paths` make."""
    found: dict[Path, dict[int, None]] = {}
    for path in paths:
        for i, token in enumerate(path):
            found.setdefault(path[:i], {})[token] = None
    return {prefix: list(tokens) for prefix, tokens in found.items()}


def score(path: Path, read: Mapping[Path, Logprobs]) -> float:
    """Return the log-probability of a whole path."""
    return math.fsum(read[path[:i]][token] for i, token in enumerate(path))


def log_sum(logprobs: Iterable[float]) -> float:
    """Return the log-probability of one or another."""
    values = list(logprobs)
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values)) if top > -math.inf else top
