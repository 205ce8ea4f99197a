"""Open-AutoGLM: an LLM serving cluster that a Python team can run, read and trust."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoglm.inference.python_api import AutoGLMEngine as AutoGLMEngine

__all__ = ["AutoGLMEngine", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the engine's package only when it is used; a client needs none of it."""
    if name == "AutoGLMEngine":
        from autoglm.inference.python_api import AutoGLMEngine

        return AutoGLMEngine
    if name == "__version__":
        return version("open-autoglm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
