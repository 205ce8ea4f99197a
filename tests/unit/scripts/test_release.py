"""A release is made only from a state that is ready for one, and says what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from scripts.release import Checkout, next_steps, notes, problems, sections

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-11-29

### Added
- A thing.

## [1.2.2] - 2026-11-01

### Fixed
- An old thing.
"""
READY = Checkout("1.2.3", date(2026, 11, 29), CHANGELOG)


def test_a_clean_tree_with_a_dated_section_is_ready() -> None:
    assert list(problems(READY)) == []


@pytest.mark.parametrize(
    ("checkout", "expected"),
    [
        (replace(READY, changed_files=("a.py",)), "the tree is not clean (a.py)"),
        (replace(READY, tags=frozenset({"v1.2.3"})), "v1.2.3 is tagged already"),
        (replace(READY, wrong_versions=("a.yaml:1 has 1.2.2",)), "a.yaml:1 has 1.2.2"),
        (replace(READY, version="1.3.0"), "CHANGELOG.md has no section"),
        (
            replace(READY, changelog=CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n- New.\n")),
            "CHANGELOG.md has entries under [Unreleased]",
        ),
        (
            replace(
                READY, changelog="## [1.2.3] - 2026-11-29\n\n## [1.2.2] - 2026-11-01\n- Old.\n"
            ),
            "CHANGELOG.md says nothing under [1.2.3]",
        ),
        (replace(READY, today=date(2026, 11, 28)), "CHANGELOG.md dates [1.2.3] 2026-11-29"),
        (
            replace(READY, changelog=CHANGELOG.replace(" - 2026-11-29", "")),
            "CHANGELOG.md has no date for [1.2.3]",
        ),
    ],
)
def test_each_obstacle_is_named(checkout: Checkout, expected: str) -> None:
    (problem,) = problems(checkout)
    assert problem.startswith(expected)


def test_the_notes_are_the_section_of_that_version_and_its_images() -> None:
    text = notes(sections(CHANGELOG)["1.2.3"], "1.2.3")
    assert "A thing." in text
    assert "An old thing." not in text
    assert "`open-autoglm-inference:1.2.3-cpu`" in text


def test_publishing_is_left_to_a_person() -> None:
    assert next_steps("1.2.3").startswith("git tag --sign v1.2.3")
