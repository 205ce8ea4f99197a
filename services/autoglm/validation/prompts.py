"""Reads prompts of JSON bodies: a text, token ids, or a list of these. Pure; used by `openai`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from autoglm.common.errors import InvalidRequest
from autoglm.validation import prefix_hash
from autoglm.validation.constraints import shown
from autoglm.validation.grpc_messages import TOKEN_BYTES
from autoglm.validation.request_info import Prompt
from autoglm.validation.scan.abridged import Cut

_MAX_TOKEN_ID = 2**31 - 1


def prompt_prefix(path: str, prompt: str | list[Any] | None, cut: Cut) -> prefix_hash.Prefix:
    """Of the first prompt where there are more; they have been found well formed."""
    if isinstance(prompt, str):
        return prefix_hash.of_text(prompt)
    first = prompt[0] if prompt else None
    if isinstance(first, str | list):
        return prompt_prefix(f"{path}[0]", first, cut)
    return prefix_hash.of_token_ids(*_ids(path, prompt, cut)) if prompt else prefix_hash.NO_PREFIX


def prompt_list(path: str, prompt: str | list[Any] | None, cut: Cut) -> Sequence[Prompt]:
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return (Prompt(path, len(prompt.encode())),)
    if prompt and all(type(item) is int for item in prompt):
        return (_token_prompt(path, prompt, cut),)
    return tuple(_one_of_many(f"{path}[{i}]", item, cut) for i, item in enumerate(prompt))


def _one_of_many(path: str, prompt: object, cut: Cut) -> Prompt:
    if isinstance(prompt, str):
        return Prompt(path, len(prompt.encode()))
    if isinstance(prompt, list) and all(type(item) is int for item in prompt):
        return _token_prompt(path, prompt, cut)
    raise InvalidRequest(
        f"{path} is {shown(prompt)}; give a text or a list of token ids", field=path
    )


def _token_prompt(path: str, ids: Sequence[int], cut: Cut) -> Prompt:
    known, count = _ids(path, ids, cut)
    low, high = (min(known), max(known)) if known else (0, 0)
    if rest := cut.numbers.get(path):
        if not rest.is_whole:
            raise InvalidRequest(
                f"{path} has numbers that are not whole; give a list of token ids", field=path
            )
        low, high = min(low, int(rest.low)), max(high, int(rest.high))
    if not 0 <= low <= high <= _MAX_TOKEN_ID:
        raise InvalidRequest(
            f"{path} has token ids from {low} to {high}; send ids of the model's tokens",
            field=path,
        )
    return Prompt(path, count * TOKEN_BYTES, count)


def _ids(path: str, ids: Sequence[int], cut: Cut) -> tuple[Sequence[int], int]:
    """As many ids of the list as are kept, and how many there are."""
    rest = cut.numbers.get(path)
    if rest is None:
        return ids, len(ids)
    kept = ids[: len(ids) - rest.stand_ins]
    if rest.ids and all(0 <= n <= _MAX_TOKEN_ID for n in kept):
        # Without an object for each, as there may be very many.
        return array("I", kept) + rest.ids, len(kept) + rest.count
    return kept, len(kept) + rest.count
