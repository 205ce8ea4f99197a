"""What policies remember between decisions. Written by the router's events, read by policies.

Bounded whatever comes: by the models that are served and the endpoints that there are.
"""

from __future__ import annotations

from collections import Counter

# Models whose turn is known; past it all start anew, which costs one uneven round.
_MOST_MODELS = 4096


class Memory:
    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def turn(self, model: str) -> int:
        """How many requests for the model have been sent somewhere."""
        return self._turns[model]

    def picked(self, model: str) -> None:
        if len(self._turns) >= _MOST_MODELS and model not in self._turns:
            self._turns.clear()
        self._turns[model] += 1
