"""Validates requests, in one place for gRPC and REST, gateway and pod.

An extractor (`of_generate`, `of_openai`, …) reads a request into a frozen `RequestInfo`; `validate`
judges it. Nothing here does I/O. The rule: never reject what vLLM would serve, except over the
bounds documented in `rules`.
"""

from autoglm.validation.grpc_messages import (
    of_chat,
    of_embed,
    of_generate,
    of_predict,
    of_tokenize,
)
from autoglm.validation.http_bodies import of_openai
from autoglm.validation.oip import of_oip
from autoglm.validation.request_info import Billing, Operation, RequestInfo
from autoglm.validation.rules import validate

__all__ = [
    "RequestInfo",
    "Billing",
    "Operation",
    "of_chat",
    "of_embed",
    "of_generate",
    "of_oip",
    "of_openai",
    "of_predict",
    "of_tokenize",
    "validate",
]
