"""A deterministic engine without a model; see `autoglm.inference.echo.engine`."""

from autoglm.inference.echo.engine import EchoEngine, start
from autoglm.inference.echo.settings import EchoSettings, parse_fault

__all__ = ["EchoEngine", "EchoSettings", "parse_fault", "start"]
