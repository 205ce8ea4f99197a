"""Rejects parameters that change a response and that the echo engine does not implement. Pure.

Sampling weights (`top_p`, `top_k`, `min_p`, penalties, `logit_bias`) are accepted without effect:
they shift probabilities, and the echo engine has none. Unknown fields pass, as with vLLM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from autoglm.common import errors
from autoglm.validation.scan.json_text import decode


class Unfollowed(msgspec.Struct):
    """Fields of `/v1/completions` that only a real engine implements."""

    allowed_token_ids: Any = None
    bad_words: Any = None
    best_of: Any = None
    chat_template: Any = None
    logprob_token_ids: Any = None
    prompt_embeds: Any = None
    prompt_logprobs: Any = None
    repetition_detection: Any = None
    return_prompt_text: Any = None
    return_token_ids: Any = None
    return_tokens_as_token_ids: Any = None
    suffix: Any = None
    truncation_side: Any = None
    use_beam_search: Any = None


class UnfollowedByChat(Unfollowed):
    echo: Any = None


_WITHOUT_EFFECT: tuple[object, ...] = (None, False, "", [])
_MORE_WITHOUT_EFFECT: Mapping[str, Collection[object]] = {
    "best_of": (1,),
    "truncation_side": ("left",),
}


def reject_unfollowed(body: bytes, fields: type[Unfollowed]) -> None:
    """Raises Unimplemented for the first field whose value would have an effect."""
    given = decode(body, fields)
    for name in fields.__struct_fields__:
        value = getattr(given, name)
        # Zero alternatives are still log-probabilities.
        is_without = value in _WITHOUT_EFFECT and not (name == "prompt_logprobs" and value == 0)
        if not is_without and value not in _MORE_WITHOUT_EFFECT.get(name, ()):
            raise not_followed(name)


def not_followed(name: str) -> errors.Unimplemented:
    return errors.Unimplemented(
        f"the echo engine does not implement {name}; leave it out, or use a vLLM pod", field=name
    )
