"""The vLLM engine: `start(EngineOptions)` returns a running engine.

The only package that imports vLLM and torch, and it does so when `start` is called, not when it is
imported. The pod's app calls `start`; `root_cause` and `hub_problem` when that fails.
"""

from autoglm.inference.vllm.failure.hub import hub_problem
from autoglm.inference.vllm.failure.postmortem import root_cause
from autoglm.inference.vllm.launch import start

__all__ = ["hub_problem", "root_cause", "start"]
