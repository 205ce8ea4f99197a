"""The facts of a request that its validity depends on, without the payload itself.

Extractors make a `RequestInfo`, `rules.validate` judges it, the gateway's pipeline reads model,
operation and size from it. Names of fields are vLLM's; `FieldNames` turns them into those of the
client's own API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import force_setattr, replace

from autoglm.validation.prefix_hash import NO_PREFIX, Prefix
from autoglm.validation.scan.abridged import NOTHING, Cut

COMPLETION_MAX_TOKENS = 16
"""What `max_tokens` is for a bare prompt when not set, as for OpenAI."""
WHOLE_PARAMETERS = (
    *("n", "top_k", "seed", "max_tokens", "min_tokens"),
    *("logprobs", "prompt_logprobs", "truncate_prompt_tokens"),
)
REAL_PARAMETERS = (
    *("temperature", "top_p", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)
"""Names of sampling parameters that are numbers, whole ones and others."""
MEDIA_PARTS = ("image_url", "audio_url", "video_url")
"""Content parts of a message that refer to media."""
MEDIA_FIELDS = frozenset((*MEDIA_PARTS, "input_audio", "file", "file_data", "images"))
"""Fields of media, whose tokens depend on the model."""
_NOT_TEXT = MEDIA_FIELDS | {"source", "prompt_embeds"}
# A guess that errs on the side of too many tokens for European languages.
_BYTES_PER_TOKEN = 4
_TOKEN_BYTES = 4


class Operation(StrEnum):
    """The kind of request, by OpenTelemetry's GenAI conventions where they have a name for it."""

    GENERATE = "text_completion"
    CHAT = "chat"
    EMBED = "embeddings"
    PREDICT = "predict"
    TOKENIZE = "tokenize"
    INFER = "generate_content"
    RERANK = "rerank"
    SCORE = "score"
    CLASSIFY = "classify"
    POOL = "pooling"
    TRANSCRIBE = "transcription"


class Billing(StrEnum):
    """The charge of a request, beside being one request."""

    TOKENS = "tokens"
    FREE = "free"
    BODY = "body"
    """Of an API that no table knows: a token for every four bytes of the request."""


class FieldNames(msgspec.Struct, frozen=True):
    """How the client's API calls a field: by `names`, else under `prefix`."""

    prefix: str = ""
    names: Mapping[str, str] = {}

    def __call__(self, name: str) -> str:
        return self.names.get(name) or self.prefix + name


def utf8_size(text: str) -> int:
    """Return the bytes of a text in UTF-8. Encodes no ASCII, as texts may be large."""
    return len(text) if text.isascii() else len(text.encode())


class Prompt(msgspec.Struct, frozen=True):
    """One prompt, as far as it is known before tokenising. `tokens` is None for text."""

    path: str
    size: int
    tokens: int | None = None

    @classmethod
    def of_ids(cls, path: str, count: int) -> Prompt:
        """Return a prompt of so many token ids."""
        return cls(path, count * _TOKEN_BYTES, count)


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters as given; None where not set."""

    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    truncate_prompt_tokens: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    logit_bias: Mapping[int, float] | Mapping[str, float] = {}
    # What max_tokens is when not set; None for the rest of the context.
    default_max_tokens: int | None = None
    use_beam_search: bool = False
    echo: bool = False

    @property
    def most_tokens(self) -> int | None:
        return self.default_max_tokens if self.max_tokens is None else self.max_tokens


class Format(msgspec.Struct, frozen=True):
    """One constraint on the output. `text` is its schema, pattern or grammar; `values` its choices.

    `kind` is text, json_object, json_schema, regex, choice, grammar or structural_tag.
    """

    path: str
    kind: str
    text: str | bytes | None = None
    values: Sequence[str] | None = None


class ToolFacts(msgspec.Struct, frozen=True):
    """A function offered to the model. `parameters` is its JSON schema, None where it has none."""

    path: str
    name: str
    parameters: str | bytes | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """`mode` is empty when not given, `named` when `function` must be called."""

    mode: str = ""
    function: str = ""


NO_TOOL_CHOICE = ToolChoice()


class Media(msgspec.Struct, frozen=True):
    """A reference to an image, a sound or a video."""

    path: str
    url: str


class Turn(msgspec.Struct, frozen=True):
    """One message. `parts` counts content parts; `empty_part` is the path of an empty one."""

    path: str
    role: str
    size: int = 0
    parts: int = 0
    has_text: bool = False
    media: Sequence[Media] = ()
    empty_part: str = ""


class RequestInfo(msgspec.Struct, frozen=True):
    """Everything that `validate` reads.

    `prompts` and `turns` are None where the operation has none; an empty sequence is a mistake.
    `stream_options` says that options for streams were given.
    """

    operation: Operation
    model: str
    field_name: FieldNames = FieldNames()
    streaming: bool = False
    prompts: Sequence[Prompt] | None = None
    turns: Sequence[Turn] | None = None
    sampling: Sampling = Sampling()
    formats: Sequence[Format] = ()
    tools: Sequence[ToolFacts] | None = None
    tool_choice: ToolChoice = NO_TOOL_CHOICE
    labels: Sequence[str] = ()
    template_kwargs: str = ""
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    stream_options: bool = False
    priority: int = 0
    session: str = ""
    unread_bytes: int = 0
    """Text of the prompts that was measured and not read, as the body is large."""
    has_checked_constraints: bool = False
    """Whether `formats` and `tools` are known to be valid."""
    prefix: Prefix = NO_PREFIX
    """The names of the prompt's blocks, for routing; of the first prompt where there are more."""
    unchecked: Sequence[Prompt] = ()
    """Further parts of the prompt, which count but are the pod's to validate: tools, documents."""
    billing: Billing = Billing.TOKENS
    stored: str = ""
    """The id of the stored response that the request is about or continues."""
    prompt_tokens: int = 0
    """The tokens of the prompt: exact for token ids, an estimate for text. Always computed."""

    @property
    def size(self) -> int:
        """Return the bytes of prompt text; token ids count four each."""
        size = self.unread_bytes
        for prompt in (*(self.prompts or ()), *self.unchecked):
            size += prompt.size
        for turn in self.turns or ():
            size += turn.size
        return size

    def __post_init__(self) -> None:
        """Count the tokens of the prompt."""
        known, text = 0, self.unread_bytes
        for prompt in (*(self.prompts or ()), *self.unchecked):
            if prompt.tokens is None:
                text += prompt.size
            else:
                known += prompt.tokens
        for turn in self.turns or ():
            text += turn.size
        force_setattr(self, "prompt_tokens", known - (-text // _BYTES_PER_TOKEN))

    @property
    def estimated_tokens(self) -> int:
        """Return the tokens of prompt and longest completion; 0 if the request uses none."""
        if self.billing is Billing.FREE:
            return 0
        return self.prompt_tokens + (self.sampling.most_tokens or 0) * (self.sampling.n or 1)


def with_cut(info: RequestInfo, cut: Cut, fields: frozenset[str]) -> RequestInfo:
    """Add the text that the body lacks: `fields` are those of prompts, others are no media."""
    if cut is NOTHING or not cut.text:
        return info
    unread = sum(size for name, size in cut.text.items() if name in fields)
    others = sum(
        size
        for name, size in cut.text.items()
        if name not in fields and _NOT_TEXT.isdisjoint(name.replace("[]", "").split("."))
    )
    named = (
        replace(info.prefix, size=info.prefix.size + unread) if info.prefix.blocks else info.prefix
    )
    unchecked = (*info.unchecked, Prompt("body", others)) if others else info.unchecked
    return replace(info, unread_bytes=unread, unchecked=unchecked, prefix=named)
