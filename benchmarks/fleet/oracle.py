"""A prefix index that knows what every simulated pod has cached: the best there can be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from autoglm.gateway.routing.prefix_index import UNKNOWN_BLOCKS, PrefixIndex
from autoglm.simulator.blocks import BLOCK_SIZE, block_hashes
from autoglm.validation.prefix_hash import BLOCK_TOKENS
from benchmarks.fleet.pod import Pod

_OF_POD = BLOCK_TOKENS // BLOCK_SIZE


class Oracle(PrefixIndex):
    """Must be given each prompt by `expect` before it is queried for it."""

    def __init__(self, pods: Sequence[Pod], urls: Sequence[str]) -> None:
        super().__init__()
        self._pods = dict(zip(urls, pods, strict=True))
        self._names: list[int] = []

    def expect(self, prompt: list[int]) -> None:
        self._names = block_hashes(prompt)

    def match(self, blocks: Sequence[int], salt: int) -> dict[str, int]:
        found = {url: self._depth(pod) // _OF_POD for url, pod in self._pods.items()}
        return {url: held for url, held in found.items() if held}

    def add(
        self,
        url: str,
        blocks: Sequence[int],
        salt: int,
        capacity: int = UNKNOWN_BLOCKS,
        now: float = 0.0,
    ) -> None:
        """It sees for itself."""

    def _depth(self, pod: Pod) -> int:
        return sum(1 for _ in takewhile(pod.has_cached, self._names))
