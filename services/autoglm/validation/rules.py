"""The rules that make a request valid. Pure; called by the gateway's validate layer and by pods.

What the engine would serve is let through, except over these bounds of ours: 16384 completions, 64
stop strings of 4096 characters, 1024 stop token ids, 4096 logit biases within 100 of zero, schemas,
patterns and grammars of 256 KiB, 1000 labels of 1000 characters, top_k, token ids and priorities of
32 bits, no booleans for numbers (but `logprobs` of completions), no output format beside a tool
call that must be made, and media by http(s) or data URL. Every error names the field in the
client's words, the value, and the way out. `bounds` has those of large bodies, `constraints`
those of output formats and tools.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from autoglm import v1
from autoglm.common.errors import InvalidRequest, ModelNotFound
from autoglm.validation.bounds import (
    MAX_LABELS,
    MAX_LOGIT_BIASES,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
)
from autoglm.validation.constraints import check_formats, check_tools, invalid, shown
from autoglm.validation.request_info import (
    NO_TOOL_CHOICE,
    WHOLE_PARAMETERS,
    Operation,
    Prompt,
    RequestInfo,
    Turn,
)

MAX_STOP_LENGTH = 4096
MAX_LABEL_LENGTH = 1000
# vLLM's VLLM_MAX_N_SEQUENCES where it is not set; how many log probabilities and which roles are
# allowed is the pod's own setting, too, and bounds nothing here.
MAX_COMPLETIONS = 16384
_INT64 = 2**63
_INT32 = 2**31
_ID_DIGITS = 10
_GREEDY = 1e-5
_URL_SCHEMES = ("http://", "https://", "data:")
_MANY = 20


@dataclass(frozen=True, slots=True)
class _Range:
    name: str
    low: float
    high: float = math.inf
    open_low: bool = False

    def allows(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        # A whole number may be too large for a float.
        is_finite = isinstance(value, int) or math.isfinite(value)
        return is_finite and above and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:.20g}" if self.open_low else f"at least {self.low:.20g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:.20g}"

    @property
    def field(self) -> tuple[str, Any, None]:
        """Return a field of a struct that msgspec converts only to values within the range."""
        is_whole = self.name in WHOLE_PARAMETERS
        most = _INT64 - 1 if is_whole else sys.float_info.max
        bounds: dict[str, float] = {
            "gt" if self.open_low else "ge": self.low,
            "le": min(self.high, most),
        }
        kind: Any = Annotated[int if is_whole else float, msgspec.Meta(**bounds)]  # type: ignore[call-overload]
        return self.name, kind | None, None


_RANGES = (
    _Range("n", 1, MAX_COMPLETIONS),
    _Range("temperature", 0, 2),
    _Range("top_p", 0, 1, open_low=True),
    _Range("top_k", -1, _INT32 - 1),
    _Range("min_p", 0, 1),
    _Range("presence_penalty", -2, 2),
    _Range("frequency_penalty", -2, 2),
    _Range("repetition_penalty", 0, open_low=True),
    _Range("min_tokens", 0),
    _Range("logprobs", -1, _INT32 - 1),
    _Range("prompt_logprobs", -1, _INT32 - 1),
    _Range("truncate_prompt_tokens", -1, _INT64 - 1),
)
# What all of them allow, checked in one call; `_RANGES` then show which value is at fault.
_Int64 = Annotated[int, msgspec.Meta(ge=-_INT64, le=_INT64 - 1)]
_InRanges = msgspec.defstruct(
    "_InRanges", [*(allowed.field for allowed in _RANGES), ("seed", _Int64 | None, None)]
)


def validate(info: RequestInfo, model: v1.Model | None, known: Sequence[str]) -> None:
    """Raise InvalidRequest or ModelNotFound for a request that the engine would not serve.

    `model` is the one that `info.model` names, or None; `known` are the names of served models.
    """
    served = _served(info, model, known)
    if info.prompts is not None:
        _check_prompts(info, info.prompts)
    if info.turns is not None:
        _check_turns(info, info.turns)
    _check_numbers(info)
    if info.sampling.stop:
        _check_stop(info)
    if info.sampling.stop_token_ids:
        _check_stop_token_ids(info)
    if info.sampling.logit_bias:
        _check_logit_bias(info)
    _check_combinations(info)
    if not info.has_checked_constraints:
        _check_constraints(info)
    if info.labels:
        _check_labels(info)
    if info.template_kwargs or info.continue_final_message:
        _check_template(info)
    _check_context(info, served)


def with_checked_constraints(info: RequestInfo) -> RequestInfo:
    """Check formats and tools ahead of `validate`, as many schemas take long."""
    _check_constraints(info)
    return replace(info, has_checked_constraints=True)


def _served(info: RequestInfo, model: v1.Model | None, known: Sequence[str]) -> v1.Model:
    if model is not None and info.model:
        return model
    field = info.field_name("model")
    if not info.model:
        raise InvalidRequest(f"{field} is empty; set it to {_any_of(known)}", field=field)
    raise ModelNotFound(
        f"{field} {shown(info.model)} is not served; set it to {_any_of(known)}", field=field
    )


def _any_of(known: Sequence[str]) -> str:
    if not known:
        return "a served model (none is served now)"
    names = [repr(name) for name in sorted(known)]
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    one_of = "one of " if len(names) > 1 else ""
    return one_of + ", ".join(names[:_MANY]) + more


def _check_prompts(info: RequestInfo, prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise invalid(info.field_name("prompt"), "is missing", "give the text to work on")
    if info.operation is Operation.TOKENIZE:
        return
    for prompt in prompts:
        if not prompt.size:
            raise invalid(prompt.path, "is empty", "give at least one character or token")


def _check_turns(info: RequestInfo, turns: Sequence[Turn]) -> None:
    if not turns:
        raise invalid(info.field_name("messages"), "is empty", "give at least one message")
    for turn in turns:
        if not turn.role:
            raise invalid(f"{turn.path}.role", "is empty", "use one of the model's, such as user")
        if turn.has_text and turn.parts:
            raise invalid(f"{turn.path}.content", "is set beside parts", "put the text in a part")
        if turn.empty_part:
            raise invalid(turn.empty_part, "has no content", "set its text or URL, or leave it out")
        for media in turn.media:
            if not media.url.lower().startswith(_URL_SCHEMES):
                remedy = "give a URL that starts with http://, https:// or data:"
                raise invalid(media.path, f"is {shown(media.url)}", remedy)


def _check_numbers(info: RequestInfo) -> None:
    try:
        msgspec.convert(info.sampling, _InRanges, from_attributes=True)
    except msgspec.ValidationError:
        _check_ranges(info)
    if not -_INT32 <= info.priority < _INT32:
        raise invalid("priority", f"is {shown(info.priority)}", "it must fit in 32 signed bits")


def _check_ranges(info: RequestInfo) -> None:
    for allowed in _RANGES:
        value = getattr(info.sampling, allowed.name)
        if value is not None and not allowed.allows(value):
            field = info.field_name(allowed.name)
            raise invalid(field, f"is {shown(value)}", f"it must be {allowed}")
    seed = info.sampling.seed
    if seed is not None and not -_INT64 <= seed < _INT64:
        raise invalid(info.field_name("seed"), f"is {shown(seed)}", "it must fit in 64 signed bits")


def _check_stop(info: RequestInfo) -> None:
    field, stops = info.field_name("stop"), info.sampling.stop
    if len(stops) > MAX_STOPS:
        raise invalid(field, f"has {len(stops)} strings", f"send at most {MAX_STOPS}")
    for stop in stops:
        if not stop:
            raise invalid(field, "has an empty string", "leave it out")
        if len(stop) > MAX_STOP_LENGTH:
            remedy = f"each may have at most {MAX_STOP_LENGTH}"
            raise invalid(field, f"has a string of {len(stop)} characters", remedy)


def _check_stop_token_ids(info: RequestInfo) -> None:
    field, tokens = info.field_name("stop_token_ids"), info.sampling.stop_token_ids
    _check_count(field, len(tokens), MAX_STOP_TOKEN_IDS)
    for token in tokens:
        if not 0 <= token < _INT32:
            raise invalid(field, f"has {shown(token)}", "send ids of the model's tokens")


def _check_logit_bias(info: RequestInfo) -> None:
    field = info.field_name("logit_bias")
    _check_count(field, len(info.sampling.logit_bias), MAX_LOGIT_BIASES)
    for token, bias in info.sampling.logit_bias.items():
        text = str(token)
        if not (text.isdecimal() and len(text) <= _ID_DIGITS and int(text) < _INT32):
            raise invalid(field, f"has the key {shown(token)}", "keys are token ids")
        if not -100 <= bias <= 100:
            remedy = "it must be from -100 to 100"
            raise invalid(field, f"of token {shown(token)} is {shown(bias)}", remedy)


def _check_count(field: str, count: int, bound: int) -> None:
    if count > bound:
        raise invalid(field, f"has {count} entries", f"send at most {bound}")


def _check_combinations(info: RequestInfo) -> None:
    """Check parameters whose valid values depend on others."""
    sampling = info.sampling
    given, least = sampling.max_tokens, sampling.min_tokens
    if given is not None and given < (0 if sampling.echo else 1):
        field = info.field_name("max_tokens")
        raise invalid(field, f"is {shown(given)}", "it must be at least 1")
    if least is not None and (most := sampling.most_tokens) is not None and least > most:
        field, unset = info.field_name("max_tokens"), " when not set" if given is None else ""
        remedy = f"raise {field}, which is {most}{unset}, or lower it"
        raise invalid(info.field_name("min_tokens"), f"is {least}", remedy)
    is_many = sampling.n is not None and sampling.n > 1 and not sampling.use_beam_search
    if is_many and sampling.temperature is not None and sampling.temperature < _GREEDY:
        remedy = (
            f"raise {info.field_name('temperature')} or set it to 1: greedy completions are equal"
        )
        raise invalid(info.field_name("n"), f"is {sampling.n} at temperature 0", remedy)
    if info.streaming and sampling.prompt_logprobs:
        remedy = "send the request without streaming, or leave it out"
        raise invalid(info.field_name("prompt_logprobs"), "is set for a stream", remedy)
    if info.stream_options and not info.streaming:
        raise invalid("stream_options", "is set without stream", "set stream to true")


def _check_constraints(info: RequestInfo) -> None:
    if info.formats:
        check_formats(info)
    if info.tools is not None or info.tool_choice is not NO_TOOL_CHOICE:
        check_tools(info)


def _check_labels(info: RequestInfo) -> None:
    _check_count("labels", len(info.labels), MAX_LABELS)
    seen: set[str] = set()
    for index, label in enumerate(info.labels):
        field = f"labels[{index}]"
        if not label.strip():
            raise invalid(field, f"is {shown(label)}", "give it a name or leave it out")
        if len(label) > MAX_LABEL_LENGTH:
            remedy = f"use at most {MAX_LABEL_LENGTH}"
            raise invalid(field, f"has {len(label)} characters", remedy)
        if label in seen:
            raise invalid(field, f"is {shown(label)} again", "give each label once")
        seen.add(label)


def _check_template(info: RequestInfo) -> None:
    if info.continue_final_message and info.add_generation_prompt:
        remedy = "set add_generation_prompt to false with it"
        raise invalid("continue_final_message", "is set beside add_generation_prompt", remedy)
    if not info.template_kwargs:
        return
    field = info.field_name("chat_template_kwargs")
    try:
        is_object = isinstance(msgspec.json.decode(info.template_kwargs), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        is_object = False
    if not is_object:
        raise invalid(field, f"is {shown(info.template_kwargs)}", "give a JSON object")


def _check_context(info: RequestInfo, model: v1.Model) -> None:
    """Reject what cannot fit. The engine shortens max_tokens to the room that a prompt leaves."""
    limit, sampling = model.max_model_len, info.sampling
    if not limit or info.operation is Operation.TOKENIZE:
        return
    truncated = sampling.truncate_prompt_tokens
    if max(sampling.max_tokens or 0, sampling.min_tokens or 0, truncated or 0) > limit:
        raise _over_context(info, limit)
    if truncated is not None:
        return
    prompts, most = info.prompts or (), limit * model.max_token_bytes
    for prompt in prompts:
        if prompt.tokens is not None:
            _check_tokens_fit(info, prompt, prompt.tokens, limit)
        elif most and prompt.size > most:
            raise _too_large(prompt.path, prompt.size, limit, most)
    if most and (info.turns or info.unread_bytes):
        _check_text_fits(info, prompts, limit, most)


def _over_context(info: RequestInfo, limit: int) -> InvalidRequest:
    """Return the error for the first parameter that is larger than the model's context."""
    names = ("max_tokens", "min_tokens", "truncate_prompt_tokens")
    values = ((name, getattr(info.sampling, name)) for name in names)
    name, value = next((n, v) for n, v in values if v is not None and v > limit)
    remedy = f"the model's context is {limit} tokens: use less"
    return invalid(info.field_name(name), f"is {value}", remedy)


def _check_tokens_fit(info: RequestInfo, prompt: Prompt, tokens: int, limit: int) -> None:
    generates = info.operation is not Operation.EMBED and info.sampling.max_tokens != 0
    least = max(info.sampling.min_tokens or 0, 1) if generates else 0
    if tokens + least > limit:
        room = f" and at least {least} must be generated" if generates else ""
        remedy = f"the model's context is {limit} tokens: shorten the prompt"
        raise invalid(prompt.path, f"has {tokens} tokens{room}", remedy)


def _check_text_fits(info: RequestInfo, prompts: Sequence[Prompt], limit: int, most: int) -> None:
    """Check the text of a single prompt or chat together with its unread rest."""
    if len(prompts) > 1 or (prompts and prompts[0].tokens is not None):
        return
    path = prompts[0].path if prompts else info.field_name("messages")
    size = sum(p.size for p in prompts) + sum(t.size for t in info.turns or ())
    if size + info.unread_bytes > most:
        raise _too_large(path, size + info.unread_bytes, limit, most)


def _too_large(path: str, size: int, limit: int, most: int) -> InvalidRequest:
    remedy = f"the model's context of {limit} tokens holds at most {most}: shorten it"
    return invalid(path, f"has {size} bytes", remedy)
