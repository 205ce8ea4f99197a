"""Sphinx: builds the documentation site from this folder. `make docs` writes it to build/site.

The pages are plain Markdown that reads as well on a code host; the navigation is in index.md.
Pages of other folders (README, CHANGELOG, examples/catalog/README.md, …) appear by a page here of a
few lines, whose text is replaced by theirs. Links that leave the folder lead to the repository
where its address is known (DOCS_REPOSITORY, or GitHub's own variables), else they are plain text.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_DOCS = Path(__file__).parent
_ROOT = _DOCS.parent

project = "Open-AutoGLM"
project_copyright = "the Open-AutoGLM authors, Apache License 2.0"
version = release = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
highlight_language = "text"
nitpicky = True
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_last_updated_fmt = None

_PAGES = {
    "first-steps": "README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security-policy": "SECURITY.md",
    "guides/catalog": "examples/catalog/README.md",
    "guides/fields": "examples/comparison/README.md",
}
"""Pages here that have the text of a file elsewhere."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def _repository() -> str:
    """The address that files of the repository are shown under, or nothing."""
    if address := os.environ.get("DOCS_REPOSITORY", ""):
        return address.rstrip("/")
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}" if name else ""


def _relative(target: str, page: PurePosixPath) -> str:
    """`target`, a path below docs/, as a link from `page`."""
    return os.path.relpath(target, page.parent)


def rewritten(page: PurePosixPath, base: Path, match: re.Match[str]) -> str:
    """One link of `page`, whose text lies in the folder `base`."""
    image, text, target, anchor = match.groups("")
    path = (base / target).resolve()
    if not path.exists():
        return match[0]  # Sphinx reports it.
    if path.is_relative_to(_DOCS) and path != _DOCS and path.is_file():
        return f"{image}[{text}]({_relative(str(path.relative_to(_DOCS)), page)}{anchor})"
    inside = str(path.relative_to(_ROOT))
    for name, source in _PAGES.items():
        if source == inside:
            return f"[{text}]({_relative(name + '.md', page)}{anchor})"
    kind = "tree" if path.is_dir() else "blob"
    address = _repository()
    return f"[{text}]({address}/{kind}/main/{inside}{anchor})" if address else text


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    base = (_DOCS / name).parent
    if root_file := _PAGES.get(name):
        file = _ROOT / root_file
        app.env.note_dependency(str(file))
        source[0], base = file.read_text(), file.parent
    page = PurePosixPath(f"{name}.md")
    source[0] = LINK.sub(lambda match: rewritten(page, base, match), source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", _read)
