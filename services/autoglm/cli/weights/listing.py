"""Lists the files that `autoglm pull` is to fetch, with what to know of them before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoglm.inference.weight_files import File, is_pickle, weights_of


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a model that vLLM needs."""

    model: str
    source: str
    """Where they are fetched from, for messages."""
    files: Sequence[File]
    licence: str = ""

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files if not file.is_here)

    def lines(self) -> Iterator[str]:
        """Yield what is fetched from where."""
        here = self.total - self.missing
        licence = f", licence {self.licence}" if self.licence else ""
        yield (
            f"{self.model} at {self.source}: {len(self.files)} files, {amount(self.total)}, of "
            f"which {amount(here)} are here{licence}"
        )

    def warnings(self) -> Iterator[str]:
        """Yield what a user should know of the weights."""
        weights = weights_of(file.name for file in self.files)
        if not weights:
            yield f"{self.model} has no weights that vLLM loads (*.safetensors, *.bin, *.pt)"
        if pickles := [name for name in weights if is_pickle(name)]:
            yield (
                f"{self.model} has no safetensors; its weights are pickles ({some(pickles)}), a "
                "format that can carry code: pull them only from an author that you trust"
            )

    def too_large(self, free: int, directory: str) -> str:
        """Return why the missing files do not fit; empty where they do."""
        if self.missing <= free:
            return ""
        return (
            f"{self.model} needs {amount(self.missing)} more, and {directory} has {amount(free)} "
            "free: free some, or choose another disk by --to DIR (for models of a hub also by "
            "HF_HOME or MODELSCOPE_CACHE)"
        )

    def page(self) -> dict[str, Any]:
        """Return the listing for machines."""
        return {
            "model": self.model,
            "source": self.source,
            "licence": self.licence,
            "bytes": self.total,
            "missingBytes": self.missing,
            "files": [
                {"name": f.name, "bytes": f.size, "sha256": f.sha256, "isHere": f.is_here}
                for f in self.files
            ],
            "warnings": list(self.warnings()),
        }


def needs_own_code(model: str, config: Mapping[str, Any]) -> str:
    """Return what to set where a config.json names code of its own; empty where it does not."""
    if not config.get("auto_map"):
        return ""
    return (
        f"{model} names code of its own in config.json (auto_map); where vLLM does not know its "
        "architecture, it runs that code only with spec.engine.args.trust_remote_code = true"
    )


def amount(size: int) -> str:
    """Return a size in the unit that suits it: `16.4 GB`."""
    for unit, bytes_of in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size} B"


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
