"""vLLM's own objects, names and one way for errors, shared by the parts of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineRequest
from autoglm.inference.vllm.exceptions import translate


@dataclass(frozen=True, slots=True)
class Runtime:
    """A started engine; `llm` is vLLM's AsyncLLM in a ReplayClient, `app` its OpenAI app."""

    llm: Any
    app: Any
    model: v1.Model

    @property
    def parses_reasoning(self) -> bool:
        return bool(self.llm.vllm_config.structured_outputs_config.reasoning_parser)

    @contextmanager
    def translating(self, prompt_field: str = "") -> Iterator[None]:
        """Every exception leaves as one of `autoglm.common.errors`.

        `prompt_field` is the request's field that the prompt comes from.
        """
        try:
            yield
        except errors.AutoGLMError:
            raise
        except Exception as error:
            raise translate(error, prompt_field, self.llm.errored) from error

    def find(self, model: str) -> Any:
        """Return the adapter called `model`, or None where that is the model itself."""
        adapter = self.adapters.get(model)
        if model and adapter is None and model not in (self.model.name, *self.model.aliases):
            known = ", ".join([self.model.name, *self.model.aliases, *self.adapters])
            raise errors.ModelNotFound(f"There is no model {model!r}; there are: {known}.")
        return adapter

    def require(self, task: str) -> None:
        if task not in self.model.tasks:
            able = ", ".join(self.model.tasks)
            raise errors.Unimplemented(f"{self.model.name} does not {task}; it can: {able}.")

    @property
    def adapters(self) -> dict[str, Any]:
        """Return vLLM's LoRA requests by name."""
        adapters: dict[str, Any] = self.app.state.openai_serving_models.lora_requests
        return adapters

    def served_name(self, adapter: Any) -> str:
        return str(adapter.lora_name) if adapter else self.model.name

    def priority(self, requested: int) -> int:
        """Return the priority, which vLLM takes only if its scheduler uses priorities."""
        policy = self.llm.vllm_config.scheduler_config.policy
        return requested if policy == "priority" else 0


def http_request(call: EngineRequest) -> Request:
    """Return the HTTP request that vLLM's serving classes read: an id and trace headers."""
    headers = {"x-request-id": call.request_id} | call.trace_headers
    raw = [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    return Request(scope)
