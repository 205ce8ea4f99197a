"""Every inference API over HTTP that gateway and pods serve, as one table. Pure.

Reading of bodies, usage, error format, routes and documentation go by this table, so that an API
that is added here is complete, and one that is not in it is not forwarded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from autoglm.common.validation.ask import Billing, Operation

RESPONSES = "/v1/responses"
MODEL = "{model:.+}"
"""A model's name within a path; it may contain slashes."""


class Dialect(StrEnum):
    """Whose error format an API has."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OIP = "oip"


class Body(StrEnum):
    """What form a request's body has, which says how its tokens are estimated."""

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
    ANY = "any"
    """Only the model is read."""


@dataclass(frozen=True, slots=True)
class HttpApi:
    """One path, written as aiohttp's router has it; `operation` names it in spans and metrics."""

    path: str
    operation: Operation
    body: Body
    dialect: Dialect = Dialect.OPENAI
    billing: Billing = Billing.TOKENS

    @property
    def has_model(self) -> bool:
        """Whether the model is named by the path."""
        return MODEL in self.path

    @property
    def route(self) -> str:
        """The path as a label of few values."""
        return self.path.replace(MODEL, "{model}")

    @property
    def regex(self) -> str:
        """RE2 and Python both take it; it matches whole paths."""
        return ".+".join(map(re.escape, self.path.split(MODEL)))


INFERENCE_POSTS: tuple[HttpApi, ...] = (
    HttpApi("/v1/chat/completions", Operation.CHAT, Body.CHAT),
    HttpApi("/v1/completions", Operation.GENERATE, Body.COMPLETION),
    HttpApi("/v1/embeddings", Operation.EMBED, Body.EMBEDDINGS),
    HttpApi(RESPONSES, Operation.CHAT, Body.RESPONSES),
    HttpApi("/v1/messages", Operation.CHAT, Body.MESSAGES, Dialect.ANTHROPIC),
    HttpApi("/v1/rerank", Operation.RERANK, Body.PAIRS),
    HttpApi("/v1/score", Operation.SCORE, Body.PAIRS),
    HttpApi("/classify", Operation.CLASSIFY, Body.INPUTS),
    HttpApi("/pooling", Operation.POOL, Body.INPUTS),
    HttpApi("/tokenize", Operation.TOKENIZE, Body.TOKENIZE, billing=Billing.FREE),
    HttpApi("/detokenize", Operation.TOKENIZE, Body.DETOKENIZE, billing=Billing.FREE),
    HttpApi("/v2/inference", Operation.PREDICT, Body.PREDICT),
    HttpApi(f"/v2/models/{MODEL}/infer", Operation.INFER, Body.OIP, Dialect.OIP),
    HttpApi(f"/v2/models/{MODEL}/generate", Operation.INFER, Body.OIP, Dialect.OIP),
    HttpApi(f"/v2/models/{MODEL}/generate_stream", Operation.INFER, Body.OIP, Dialect.OIP),
)
_BY_PATH = {api.path: api for api in INFERENCE_POSTS if not api.has_model}
_TEMPLATES = tuple((re.compile(api.regex), api) for api in INFERENCE_POSTS if api.has_model)


def inference_post(path: str) -> HttpApi | None:
    """The API of a POST to the path; None for a path that is not forwarded."""
    return _BY_PATH.get(path) or _by_template(path)


@lru_cache(1024)
def _by_template(path: str) -> HttpApi | None:
    return next((api for form, api in _TEMPLATES if form.fullmatch(path)), None)


_FAMILIES: tuple[tuple[str, Dialect], ...] = (
    ("/v1/messages(/.*)?", Dialect.ANTHROPIC),
    ("/v2(/.*)?", Dialect.OIP),
)
"""Whole families of paths, those that nothing serves included."""


def _dialects() -> tuple[tuple[str, Dialect], ...]:
    """The first expression that matches a whole path has its dialect."""
    single = ((api.regex, api.dialect) for api in INFERENCE_POSTS)
    families = [(re.compile(form), dialect) for form, dialect in _FAMILIES]
    exceptions = (
        (form, dialect)
        for form, dialect in single
        if any(family.fullmatch(form) and whose is not dialect for family, whose in families)
    )
    return (*exceptions, *_FAMILIES, (".*", Dialect.OPENAI))


DIALECTS = _dialects()
"""Regular expressions of whole paths, in the order in which they are tried; RE2 takes them too."""
_DIALECT_FORMS = tuple((re.compile(form, re.DOTALL), dialect) for form, dialect in DIALECTS)


def dialect_of(path: str) -> Dialect:
    """Whose error format a path has, forwarded or not; a query does not matter."""
    path = path.partition("?")[0]
    return next(dialect for form, dialect in _DIALECT_FORMS if form.fullmatch(path))
