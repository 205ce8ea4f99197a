"""Rules of a resource that no field can check alone, and what its engine and a cluster take.

Rules read the raw document, so that they apply even where another field is invalid. The CRD has
those of `between` in CEL (`cel`); tests/support/resources.py holds documents for which both must
give the same result. Called by `parse` only.
"""

from autoglm.api.problem import Problem
from autoglm.api.rules.between import (
    BETWEEN,
    CACHE_FIELDS,
    CLAIM_FIELDS,
    ECHO_ARGS,
    FIELD_OF_ARG,
    ONE_CLAIM,
    WEIGHTS_FIELDS,
)
from autoglm.api.rules.document import Document, at
from autoglm.api.rules.known import KNOWN

__all__ = [
    "CACHE_FIELDS",
    "CLAIM_FIELDS",
    "ECHO_ARGS",
    "FIELD_OF_ARG",
    "ONE_CLAIM",
    "WEIGHTS_FIELDS",
    "at",
    "problems_within",
]


def problems_within(document: Document) -> list[Problem]:
    """Return a problem for each rule that a document violates."""
    return [problem for rule in (*BETWEEN, *KNOWN) for problem in rule(document)]
