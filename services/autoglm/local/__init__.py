"""Runs AutoGLMDeployments as local processes, for `autoglm up`."""

from autoglm.local.planning import Addresses, Policy
from autoglm.local.up import UpOptions, up

__all__ = ["Addresses", "Policy", "UpOptions", "up"]
