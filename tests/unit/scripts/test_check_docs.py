"""Links of the documents."""

from __future__ import annotations

from pathlib import Path

from scripts.check_docs import anchors, dead_links


def test_anchors_are_those_of_github() -> None:
    text = "# A `--flag`, and more\n## Twice\n```\n# no heading\n```\n## Twice\n"
    assert anchors(text) == {"a---flag-and-more", "twice", "twice-1"}


def test_a_link_needs_its_file_and_its_heading(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# There\n")
    document = tmp_path / "a.md"
    document.write_text("# Here\n[1](#here) [2](b.md#there) [3](b.md) [4](https://x/#y)\n")
    assert not list(dead_links(document))
    document.write_text("# Here\n[1](#gone) [2](b.md#gone) [3](c.md)\n")
    assert list(dead_links(document)) == [
        "link to #gone: a.md has no such heading",
        "link to b.md#gone: b.md has no such heading",
        "link to 'c.md' leads nowhere",
    ]
