"""The fields of REST bodies that `validate` judges, as msgspec types. Used by `http_bodies`.

All other fields pass unseen, as the pod's own server knows them. Types are as lenient as that
server's: "5" is a number, 5.0 a whole one.
"""

from __future__ import annotations

from typing import Any

import msgspec

ABSENT = msgspec.Raw(b"")


class Url(msgspec.Struct):
    url: str | None = None


class Part(msgspec.Struct):
    text: str | None = None
    image_url: str | Url | None = None
    audio_url: str | Url | None = None
    video_url: str | Url | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[str | Part] | None = None
    # As it stands: it counts for the prompt's prefix and is judged by the pod.
    tool_calls: msgspec.Raw = ABSENT


class Schema(msgspec.Struct):
    schema: msgspec.Raw = ABSENT


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: Schema | None = None


class StructuredOutputs(msgspec.Struct):
    json: msgspec.Raw = ABSENT
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None


class Function(msgspec.Struct):
    name: str
    description: msgspec.Raw = ABSENT
    parameters: msgspec.Raw = ABSENT


class Tool(msgspec.Struct):
    function: Function


class Named(msgspec.Struct):
    name: str = ""


class NamedChoice(msgspec.Struct):
    function: Named = msgspec.field(default_factory=Named)


class Sampled(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
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
    prompt_logprobs: int | None = None
    truncate_prompt_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, float] | None = None
    use_beam_search: bool | None = None
    echo: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: int | None = None
    session_id: str | None = None


class Chat(Sampled):
    messages: list[Message] = []
    max_completion_tokens: int | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class Completion(Sampled):
    # A text, texts, token ids, or lists of token ids; `prompts.prompt_list` distinguishes them.
    prompt: str | list[Any] | None = None
    prompt_embeds: Any = None
    # true is 1, as for vLLM.
    logprobs: int | bool | None = None


class Responses(Sampled):
    input: str | list[Any] | None = None
    # A text; other shapes are the pod's to judge.
    instructions: Any = None
    tools: Any = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None


class Embeddings(msgspec.Struct):
    model: str | None = None
    input: str | list[Any] | None = None
    messages: list[Any] | None = None
    truncate_prompt_tokens: int | None = None


class Tokenize(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None


class Detokenize(msgspec.Struct):
    model: str | None = None
    tokens: list[int] = []


class Predict(Sampled):
    model_name: str | None = None
    input_data: str = ""
    labels: list[str] = []
