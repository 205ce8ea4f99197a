"""A deterministic engine without a model; see `autoglm.simulator.engine`."""

from autoglm.inference.settings import EchoSettings, parse_fault
from autoglm.simulator.engine import EchoEngine, start

__all__ = ["EchoEngine", "EchoSettings", "parse_fault", "start"]
