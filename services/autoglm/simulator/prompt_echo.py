"""Puts the prompt before each completion, as `echo` of `/v1/completions` requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoglm import v1
from autoglm.common import errors
from autoglm.simulator import tokenizer
from autoglm.simulator.completion import logprob
from autoglm.simulator.openai_json import Completion, Json, completion_logprobs


@dataclass(slots=True)
class PromptEcho:
    """`is_alone` is `max_tokens: 0`: the prompt is all of the text."""

    prompt: Sequence[int]
    logprobs: int | None
    is_alone: bool
    _echoed: set[int] = field(default_factory=set)

    def before(self, choice: Json) -> Json:
        """Return the choice of a completion or of its chunk; only the first of an index changes."""
        if choice["index"] in self._echoed:
            return choice | {"text": "", "logprobs": None} if self.is_alone else choice
        self._echoed.add(choice["index"])
        text, found = tokenizer.decode(self.prompt), self._prompt_logprobs()
        if self.is_alone:
            return choice | {"text": text, "logprobs": found}
        if found and choice["logprobs"]:
            found = {name: [*found[name], *choice["logprobs"][name]] for name in found}
        return choice | {"text": text + choice["text"], "logprobs": found}

    def _prompt_logprobs(self) -> Json | None:
        if self.logprobs is None:
            return None
        found = completion_logprobs([logprob(i, self.logprobs) for i in self.prompt]) or {}
        # Nothing precedes the first token, so it has no probability.
        for name in ("token_logprobs", "top_logprobs"):
            found[name][0] = None
        return found


def prompt_echo(request: v1.GenerateRequest, body: Completion) -> PromptEcho | None:
    """Return the prompt's echo; None without `echo`. Raises ResumeImpossible, as vLLM does."""
    if not body.echo:
        return None
    if body.autoglm_resume is not None:
        raise errors.ResumeImpossible("echo: the prompt is not in the tokens of the broken stream")
    is_text = request.WhichOneof("prompt") == "text"
    ids = tokenizer.encode(request.text) if is_text else list(request.token_ids.ids)
    kept = ids[-max(0, body.truncate_prompt_tokens or 0) :]
    return PromptEcho(kept, body.logprobs, body.max_tokens == 0)
