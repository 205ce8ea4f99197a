"""Every API over HTTP that gateway and pods serve, as one table. Pure.

Reading of bodies, usage, error format, routes and documentation go by this table, so that an API
that is added here is complete, and one that is not in it is not forwarded. `DENIED` names the
other paths of vLLM's app, each with the reason; what is in no list is not served either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from autoglm.validation.request_info import Billing, Operation

RESPONSES = "/v1/responses"
MODEL = "{model:.+}"
"""A model's name within a path; it may contain slashes."""


class Dialect(StrEnum):
    """The error format of an API."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OIP = "oip"


class Body(StrEnum):
    """The form of a request's body, which determines how its tokens are estimated."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    PAIRS = "pairs"
    """A query, or texts, with documents: scores and rankings."""
    INPUTS = "inputs"
    """Texts or messages, without output: classification, pooling."""
    BATCH = "batch"
    """Several conversations."""
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    PREDICT = "predict"
    OIP = "oip"
    FORM = "form"
    """A form with a file."""
    ANY = "any"
    """Only the model is read."""


@dataclass(frozen=True, slots=True)
class HttpApi:
    """One path; `operation` names it in spans and metrics."""

    path: str
    operation: Operation
    body: Body
    dialect: Dialect = Dialect.OPENAI
    billing: Billing = Billing.TOKENS
    needs: str = ""
    """A requirement on the model or its pod; empty if every generating model serves it."""

    @property
    def has_model(self) -> bool:
        """Return whether the path names the model."""
        return MODEL in self.path

    @property
    def route(self) -> str:
        """Return the path as a label of few values."""
        return self.path.replace(MODEL, "{model}")

    @property
    def regex(self) -> str:
        """Return a pattern of whole paths, for RE2 and Python."""
        return ".+".join(map(re.escape, self.path.split(MODEL)))


_RENDER = "`--enable-scale-out` of vLLM"
_SCORES = "a model that scores: a cross-encoder, or embeddings"

INFERENCE_POSTS: tuple[HttpApi, ...] = (
    HttpApi("/v1/chat/completions", Operation.CHAT, Body.CHAT),
    HttpApi("/v1/chat/completions/batch", Operation.CHAT, Body.BATCH),
    HttpApi("/v1/completions", Operation.GENERATE, Body.COMPLETION),
    HttpApi(RESPONSES, Operation.CHAT, Body.RESPONSES),
    HttpApi("/v1/messages", Operation.CHAT, Body.MESSAGES, Dialect.ANTHROPIC),
    HttpApi(
        "/v1/messages/count_tokens",
        Operation.TOKENIZE,
        Body.MESSAGES,
        Dialect.ANTHROPIC,
        Billing.FREE,
    ),
    HttpApi("/v1/embeddings", Operation.EMBED, Body.EMBEDDINGS, needs="an embedding model"),
    HttpApi("/v2/embed", Operation.EMBED, Body.INPUTS, needs="an embedding model"),
    *(
        HttpApi(path, Operation.RERANK, Body.PAIRS, needs=_SCORES)
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    *(
        HttpApi(path, Operation.SCORE, Body.PAIRS, needs=_SCORES)
        for path in ("/score", "/v1/score")
    ),
    HttpApi("/generative_scoring", Operation.SCORE, Body.PAIRS),
    HttpApi("/classify", Operation.CLASSIFY, Body.INPUTS, needs="a classifying model"),
    HttpApi("/pooling", Operation.POOL, Body.INPUTS, needs="a pooling model"),
    *(
        HttpApi(path, Operation.TRANSCRIBE, Body.FORM, needs="a speech-to-text model")
        for path in ("/v1/audio/transcriptions", "/v1/audio/translations")
    ),
    HttpApi(
        "/v1/systemone",
        Operation.GENERATE,
        Body.ANY,
        needs="a model that supports structured decisions",
    ),
    HttpApi("/tokenize", Operation.TOKENIZE, Body.TOKENIZE, billing=Billing.FREE),
    HttpApi("/detokenize", Operation.TOKENIZE, Body.DETOKENIZE, billing=Billing.FREE),
    *(
        HttpApi(f"{path}/render", Operation.TOKENIZE, body, dialect, Billing.FREE, _RENDER)
        for path, body, dialect in (
            ("/v1/chat/completions", Body.CHAT, Dialect.OPENAI),
            ("/v1/completions", Body.COMPLETION, Dialect.OPENAI),
            (RESPONSES, Body.RESPONSES, Dialect.OPENAI),
            ("/v1/messages", Body.MESSAGES, Dialect.ANTHROPIC),
        )
    ),
    *(
        HttpApi(
            f"{path}/derender", Operation.TOKENIZE, Body.ANY, Dialect.OPENAI, Billing.FREE, _RENDER
        )
        for path in ("/v1/chat/completions", "/v1/completions")
    ),
    HttpApi("/v2/inference", Operation.PREDICT, Body.PREDICT),
    HttpApi(f"/v2/models/{MODEL}/infer", Operation.INFER, Body.OIP, Dialect.OIP),
    HttpApi(f"/v2/models/{MODEL}/generate", Operation.INFER, Body.OIP, Dialect.OIP),
    HttpApi(f"/v2/models/{MODEL}/generate_stream", Operation.INFER, Body.OIP, Dialect.OIP),
)
"""POSTs that are forwarded to a pod, by the model that the request names."""

INFERENCE_GETS: tuple[HttpApi, ...] = (
    HttpApi(
        "/tokenizer_info",
        Operation.TOKENIZE,
        Body.ANY,
        billing=Billing.FREE,
        needs="`--enable-tokenizer-info-endpoint` of vLLM; `?model=NAME` where there are several",
    ),
    HttpApi(f"/v2/models/{MODEL}", Operation.INFER, Body.OIP, Dialect.OIP, Billing.FREE),
)
"""The same with GET."""

STORED: tuple[tuple[str, str], ...] = (
    ("GET", f"{RESPONSES}/{{response_id}}"),
    ("POST", f"{RESPONSES}/{{response_id}}/cancel"),
)
"""Methods and paths of stored responses; forwarded to the pod that the id names."""
_STORED = tuple((method, re.compile(re.sub("{.*}", "[^/]+", path))) for method, path in STORED)

OWN: Mapping[str, str] = MappingProxyType(
    {
        "/": "the paths that the gateway serves",
        "/version": "the gateway's version",
        "/openapi.json": "OpenAPI description of this API",
        "/docs": "the same as a page for browsers",
        "/health": "the process is alive",
        "/health/live": "the same",
        "/health/ready": "requests can be served",
        "/metrics": "Prometheus metrics",
        "/v1/models": "the models with a ready endpoint",
        f"/v1/models/{MODEL}": "one of them",
        "/v2": "Open Inference Protocol: the server",
        "/v2/health/live": "the process is alive",
        "/v2/health/ready": "requests can be served",
        f"/v2/models/{MODEL}/ready": "whether a pod of the model is ready",
    }
)
"""GETs that the gateway serves itself; they are never forwarded."""

_MANAGES = "manages or inspects the engine, which the resource configures"
_WEIGHTS = "changes or inspects the model's weights"
_DOCUMENTS = (
    "documents all routes of the engine, management routes included; "
    "the gateway serves its own /openapi.json and /docs"
)
DENIED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "/collective_rpc",
                "/fault_tolerance/apply",
                "/fault_tolerance/status",
                "/get_world_size",
                "/is_paused",
                "/is_scaling_elastic_ep",
                "/is_sleeping",
                "/kv_event_sources",
                "/pause",
                "/release_kv_cache_memory",
                "/reset_encoder_cache",
                "/reset_mm_cache",
                "/reset_prefix_cache",
                "/resume",
                "/scale_elastic_ep",
                "/server_info",
                "/sleep",
                "/start_profile",
                "/stop_profile",
                "/wake_up",
            ),
            _MANAGES,
        ),
        **dict.fromkeys(
            (
                "/finish_weight_update",
                "/init_weight_transfer_engine",
                "/shutdown_weight_transfer_engine",
                "/start_draft_weight_update",
                "/start_weight_update",
                "/update_weight_version",
                "/update_weights",
                "/weight_checker",
                "/weight_info",
                "/adapters",
                "/adapters/{adapter_name}",
                "/v1/load_lora_adapter",
                "/v1/unload_lora_adapter",
            ),
            _WEIGHTS,
        ),
        **dict.fromkeys(
            ("/abort_requests", "/inference/v1/abort_requests"), "ends requests of other callers"
        ),
        "/inference/v1/generate": "takes token ids, bypassing the chat template and the validation",
        "/invocations": "is one path for several APIs, distinguished by the body alone",
        "/v1/realtime": "is a WebSocket, which neither data plane relays",
        "/cohere/v2/chat": "needs the `cohere` package, which pods do not have",
        "/cohere/v2/chat/render": "needs the `cohere` package, which pods do not have",
        **dict.fromkeys(("/docs", "/docs/oauth2-redirect", "/redoc"), _DOCUMENTS),
    }
)
"""Other paths of vLLM's app: gateways do not forward them and pods do not serve them."""

POD_GETS = ("/health", "/health/ready", "/metrics", "/ping", "/load", "/version", "/v1/models")
"""GETs of a pod beside its inference and OIP's: for probes, scrapers and gateways."""

_BY_PATH = {api.path: api for api in INFERENCE_POSTS if not api.has_model}
_TEMPLATES = tuple((re.compile(api.regex), api) for api in INFERENCE_POSTS if api.has_model)
_POD_GETS = frozenset((*POD_GETS, *(api.path for api in INFERENCE_GETS)))


def inference_post(path: str) -> HttpApi | None:
    """Return the API of a POST to the path; None for a path that is not forwarded."""
    return _BY_PATH.get(path) or _by_template(path)


def is_form(path: str) -> bool:
    """Return whether a POST to the path has a form with a file."""
    api = _BY_PATH.get(path)
    return api is not None and api.body is Body.FORM


def is_served_by_pods(method: str, path: str) -> bool:
    """Return whether a pod serves the request.

    Its OIP routes cover `/v2`, `/v2/health/...` and `/v2/models/...`, with every method.
    """
    if any(method == m and pattern.fullmatch(path) for m, pattern in _STORED):
        return True
    if path == "/v2" or path.startswith(("/v2/health/", "/v2/models/")):
        return True
    if method == "POST":
        return inference_post(path) is not None
    return method in ("GET", "HEAD") and path in _POD_GETS


@lru_cache(1024)
def _by_template(path: str) -> HttpApi | None:
    return next((api for pattern, api in _TEMPLATES if pattern.fullmatch(path)), None)


_FAMILIES: tuple[tuple[str, Dialect], ...] = (
    ("/v1/messages(/.*)?", Dialect.ANTHROPIC),
    ("/v2(/.*)?", Dialect.OIP),
)
"""Dialects by path prefix; they apply to paths that are not served, too."""


def _dialects() -> tuple[tuple[str, Dialect], ...]:
    """Return patterns with their dialect; the first that matches a whole path decides."""
    single = ((api.regex, api.dialect) for api in INFERENCE_POSTS)
    families = [(re.compile(pattern), dialect) for pattern, dialect in _FAMILIES]
    exceptions = (
        (pattern, dialect)
        for pattern, dialect in single
        if any(family.fullmatch(pattern) and whose is not dialect for family, whose in families)
    )
    return (*exceptions, *_FAMILIES, (".*", Dialect.OPENAI))


DIALECTS = _dialects()
"""Regular expressions of whole paths, in the order in which they are tried; RE2 takes them too."""
_DIALECT_FORMS = tuple((re.compile(pattern, re.DOTALL), dialect) for pattern, dialect in DIALECTS)


def dialect_of(path: str) -> Dialect:
    """Return the error format of a path, forwarded or not; a query does not matter."""
    path = path.partition("?")[0]
    if (api := _BY_PATH.get(path)) is not None:
        return api.dialect
    return next(dialect for pattern, dialect in _DIALECT_FORMS if pattern.fullmatch(path))
