"""AutoGLMDeployment: types, defaults and validation. No I/O, no Kubernetes client.

Reading YAML is in `autoglm.api.documents`, which needs pyyaml.
"""

from autoglm.api.deployment import (
    API_VERSION,
    GROUP,
    KIND,
    SHORT_NAME,
    VERSION,
    AutoGLMDeployment,
    Metadata,
    Spec,
)
from autoglm.api.parse import parse
from autoglm.api.problem import InvalidSpec, Problem

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "SHORT_NAME",
    "VERSION",
    "AutoGLMDeployment",
    "InvalidSpec",
    "Metadata",
    "Problem",
    "Spec",
    "parse",
]
