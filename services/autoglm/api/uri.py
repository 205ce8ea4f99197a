"""Reads where a model is: a path, a name on a hub, or a URI with a scheme. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

PATH, HUB, MODELSCOPE, S3, OCI, CLAIM = "path", "hf", "ms", "s3", "oci", "pvc"
_HUB_NAMES: Final = "a hub name (ORG/NAME, hf://ORG/NAME, ms://ORG/NAME)"
PROCESSES_LOAD: Final = f"{_HUB_NAMES} or a path"
"""What a process on this machine loads, for messages."""
PODS_LOAD: Final = f"{_HUB_NAMES}, s3://BUCKET/PREFIX, oci://IMAGE, pvc://CLAIM/PATH or a path"
"""What a pod loads, for messages."""
HUBS: Final = (HUB, MODELSCOPE)
"""Schemes that an engine downloads itself."""
SCHEMES: Final = (*HUBS, S3, OCI, CLAIM)
"""Schemes that pods load."""
_DOWNLOADED: Final = (*HUBS, S3)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# With the quantization of a GGUF file, as vLLM takes it.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?", re.ASCII)
_MODELSCOPE_NAME = re.compile(
    r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?", re.ASCII
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?")
_CLAIM_PATH = re.compile(r"(?P<claim>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(/(?P<path>[^\s]*))?")
_IMAGE = re.compile(r"[a-zA-Z0-9][^\s]*")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model is."""

    scheme: str
    """`path`, `hf` for a name on the Hugging Face hub, or the scheme of the URI."""
    name: str
    """The path, the name on the hub, or the URI without its scheme."""

    @property
    def is_downloaded(self) -> bool:
        """Return whether it can be downloaded into a directory: all but one file of a hub."""
        return self.scheme in _DOWNLOADED and not (self.scheme == HUB and ":" in self.name)

    @property
    def repository(self) -> tuple[str, str]:
        """Return model and revision of a name on a hub, whose revision only ms:// has: empty for
        the default branch."""
        name, _, revision = self.name.partition("@")
        return (name, revision) if self.scheme == MODELSCOPE else (self.name, "")

    @property
    def claim(self) -> tuple[str, str]:
        """Return claim and path of a pvc://; empty for any other."""
        found = _CLAIM_PATH.fullmatch(self.name) if self.scheme == CLAIM else None
        return (found["claim"], found["path"] or "") if found else ("", "")


def location_of(uri: str) -> Location:
    """Return the location that a URI of a manifest or a command names."""
    if found := _SCHEME.fullmatch(uri):
        return Location(found[1], found[2])
    return Location(PATH if uri.startswith(("/", "./", "../", "~")) else HUB, uri)


def directory_of(uri: str, revision: str | None = None) -> str:
    """Return the name of the directory that a download has: readable, and of its own."""
    plain = for_engine(uri)
    text = _NOT_IN_NAMES.sub("-", plain.partition("://")[2] or plain)[-_LONGEST_NAME:].strip("-.")
    own = hashlib.sha256(f"{plain}@{revision or ''}".encode()).hexdigest()[:8]
    return f"{text or 'model'}-{own}"


def problem_of_uri(uri: str) -> str:
    """Return why pods cannot load a URI, with what they can load; empty where they can."""
    found = location_of(uri)
    forms = {HUB: _HUB_NAME, MODELSCOPE: _MODELSCOPE_NAME, S3: _BUCKET}
    forms |= {OCI: _IMAGE, CLAIM: _CLAIM_PATH}
    if found.scheme == PATH:
        return ""
    if found.scheme not in forms:
        return (
            f"{found.scheme}:// cannot be loaded; give {PODS_LOAD}, or copy the model to a path "
            f"with `autoglm pull`"
        )
    if not forms[found.scheme].fullmatch(found.name) or ".." in found.name.split("/"):
        what = "name of a hub" if found.scheme == HUB else f"location of {found.scheme}://"
        return f"is no {what}; give {PODS_LOAD}"
    return ""


def problem_here(uri: str) -> str:
    """Return why a process on this machine cannot load a URI; empty where it can."""
    found = location_of(uri)
    if found.scheme in SCHEMES and found.scheme not in HUBS:
        return (
            f"{found.scheme}:// is loaded by pods of a cluster only; give {PROCESSES_LOAD}, or "
            "copy the model to a path"
        )
    return problem_of_uri(uri).replace(PODS_LOAD, PROCESSES_LOAD)


def for_engine(uri: str) -> str:
    """Return a URI as the engine takes it: names of the Hugging Face hub have no scheme."""
    found = location_of(uri)
    return found.name if found.scheme == HUB else uri
