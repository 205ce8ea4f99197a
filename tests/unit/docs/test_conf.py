"""Links of pages lead to the right place, on the site and in the repository."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from docs.conf import LINK, rewritten

ROOT = Path(__file__).parents[3]


def _page(name: str, base: Path, text: str) -> str:
    return LINK.sub(lambda match: rewritten(PurePosixPath(name), base, match), text)


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("DOCS_REPOSITORY", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[r](routing.md#figures)", "[r](routing.md#figures)"),
        ("![f](figures/growth.svg)", "![f](figures/growth.svg)"),
        ("[h](#here) [w](https://example.com/a.md)", "[h](#here) [w](https://example.com/a.md)"),
        ("[log](../CHANGELOG.md)", "[log](changelog.md)"),
        ("see [values](../deploy/helm/open-autoglm/values.yaml).", "see values."),
        ("[lost](lost.md)", "[lost](lost.md)"),
    ],
)
def test_a_page_links_to_pages_and_to_nothing_outside_without_an_address(
    text: str, expected: str
) -> None:
    assert _page("install.md", ROOT / "docs", text) == expected


def test_a_page_in_a_folder_keeps_its_relative_links() -> None:
    text = _page(
        "adr/0006-tls-to-pods.md", ROOT / "docs/adr", "[a](../routing.md) [b](../../CHANGELOG.md)"
    )
    assert text == "[a](../routing.md) [b](../changelog.md)"


def test_the_text_of_a_root_file_links_from_the_page_that_shows_it() -> None:
    text = _page("first-steps.md", ROOT, "[r](docs/routing.md) [c](CONTRIBUTING.md)")
    assert text == "[r](routing.md) [c](contributing.md)"


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"DOCS_REPOSITORY": "https://git.example/a/b/"}, "https://git.example/a/b"),
        ({"GITHUB_REPOSITORY": "a/b"}, "https://github.com/a/b"),
    ],
)
def test_files_outside_the_site_are_linked_in_the_repository(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    text = _page("install.md", ROOT / "docs", "[e](../examples) [m](../Makefile)")
    assert text == f"[e]({address}/tree/main/examples) [m]({address}/blob/main/Makefile)"
