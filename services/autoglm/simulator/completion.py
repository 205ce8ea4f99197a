"""Generates one echo completion, token by token, with its finish reason.

It emits the words it was given (in order at temperature 0, shuffled by the seed above), then ends,
or continues with seeded filler where `min_tokens` or `ignore_eos` require more. Stop strings are
found across token boundaries, and text that may still become one is held back. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from autoglm import v1
from autoglm.common.errors import ResumeImpossible
from autoglm.simulator import tokenizer

_FILLER = ("the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "ran", "off", "to", "see")
_CHOSEN_LOGPROB = -0.125


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """The output of one token."""

    token_id: int
    text: str
    finish_reason: v1.FinishReason = v1.FINISH_REASON_UNSPECIFIED
    stop_reason: str = ""


class StopFinder:
    """Passes text on until one of the stop strings appears in it."""

    def __init__(self, stops: Sequence[str], include: bool) -> None:
        self._stops = [s for s in stops if s]
        self._include = include
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """Return the text that may be delivered, and the stop string found, if any."""
        self._held += text
        found = min(((at, s) for s in self._stops if (at := self._held.find(s)) >= 0), default=None)
        if found:
            at, stop = found
            return self._held[: at + len(stop) if self._include else at], stop
        # How much of the end may be the beginning of a stop string.
        longest = max((len(s) for s in self._stops), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        keep = next(
            (n for n in sizes if any(s.startswith(self._held[-n:]) for s in self._stops)), 0
        )
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out, ""

    def end(self) -> str:
        return self._held


class EchoCompletion:
    def __init__(
        self, output: Sequence[int], params: v1.SamplingParams, max_tokens: int, index: int
    ) -> None:
        self._params = params
        self._max_tokens = max_tokens
        self._count = 0
        rng = random.Random(params.seed + index if params.HasField("seed") else None)
        words = tokenizer.words(output)
        if params.temperature > 0:
            rng.shuffle(words)
        self._body = chain.from_iterable(words)
        self._filler = _filler(random.Random(params.seed + index))
        self._decoder = tokenizer.Decoder()
        self._stops = StopFinder(params.stop, params.include_stop_str_in_output)

    def step(self) -> TokenOutput:
        """Return the next token. Not to be called after one with a finish reason."""
        params = self._params
        wants_more = params.ignore_eos or self._count < params.min_tokens
        token_id = next(self._body, None) or (next(self._filler) if wants_more else tokenizer.EOS)
        self._count += 1
        may_stop = self._count > params.min_tokens
        text, stop = self._decoder.feed(token_id), ""
        if may_stop:
            text, stop = self._stops.feed(text)
        finish, why = v1.FINISH_REASON_UNSPECIFIED, stop
        if stop or token_id == tokenizer.EOS:
            finish = v1.FINISH_REASON_STOP
        elif may_stop and token_id in params.stop_token_ids:
            finish, why = v1.FINISH_REASON_STOP, str(token_id)
        elif self._count >= self._max_tokens:
            finish = v1.FINISH_REASON_LENGTH
        if finish and not stop:
            last, stop = self._stops.feed(self._decoder.end())
            finish, why = (v1.FINISH_REASON_STOP, stop) if stop else (finish, why)
            text += last + ("" if stop else self._stops.end())
        return TokenOutput(token_id, text, finish, why)

    def skip(self, token_ids: Sequence[int]) -> None:
        """Resume behind the tokens that another pod has delivered. Raises ResumeImpossible."""
        for place, token_id in enumerate(token_ids):
            if self.step().token_id != token_id:
                raise ResumeImpossible(
                    f"token {place} of the broken stream is not what this request generates here; "
                    "with a temperature it needs a seed"
                )


def logprob(token_id: int, alternatives: int) -> v1.TokenLogprob:
    """Return made-up, repeatable log-probabilities; the chosen token is the likeliest."""
    top = [_one_logprob(token_id, 0)]
    top += [_one_logprob(0x100 + (token_id + i) % 0x80, i) for i in range(1, alternatives)]
    chosen = _one_logprob(token_id, 0)
    chosen.top_logprobs.extend(top[:alternatives])
    return chosen


def _one_logprob(token_id: int, place: int) -> v1.TokenLogprob:
    return v1.TokenLogprob(
        token_id=token_id,
        token=tokenizer.decode([token_id]),
        logprob=_CHOSEN_LOGPROB - 2 * place,
        rank=place + 1,
    )


def _filler(rng: random.Random) -> Iterator[int]:
    while True:
        yield from tokenizer.encode(f" {rng.choice(_FILLER)}")
