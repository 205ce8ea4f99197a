"""Words that the glossary replaces are found where people read them."""

from __future__ import annotations

import pytest
from scripts.measure.words import BANNED, Allowed, find, instead

PYTHON = '''\
"""Answers a request,
and goes
on."""

ASK = "ask"
LOG = "nobody " "told %s"


def told() -> str:
    # It looks, as it is told, and looked
    # at the rest.
    return f"asked for {ASK} tokens"  # asks
'''


def test_docstrings_comments_messages_and_names_of_python_are_read() -> None:
    assert [(one.line, one.word, one.kind) for one in find("a.py", PYTHON)] == [
        (1, "answers", "docstring"),
        (2, "goes on", "docstring"),
        (10, "told", "comment"),
        (10, "looked at", "comment"),
        (12, "asks", "comment"),
        (9, "told", "name"),
        (6, "nobody", "string"),
        (6, "told", "string"),
        (12, "asked", "string"),
    ]


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("docs/a.md", "# A\n\nA pod that goes\non.\n", 3),
        ("a.proto", "// It goes\n// on.\n", 1),
        ("Makefile", "all: ## Ask it\n", 1),
        ("scripts/kube", "#!/usr/bin/env bash\n# somebody\n", 2),
    ],
)
def test_other_files_are_read_whole(path: str, text: str, line: int) -> None:
    assert [one.line for one in find(path, text)] == [line]


@pytest.mark.parametrize("word", ["task", "asked_for", "foretells", "going on", "answerable", "is"])
def test_parts_of_other_words_are_not_found(word: str) -> None:
    assert not BANNED.search(word)


def test_an_allowed_phrase_covers_only_what_stands_in_it() -> None:
    rule = Allowed("docs/*.md", "quotation", "question and answer")
    text = "A question and answer. An answer.\nquestion and answer\n"
    assert [one.line for one in find("docs/a.md", text, [rule])] == [1]
    assert len(list(find("a.md", text, [rule]))) == 3


def test_a_rule_without_a_phrase_allows_the_file() -> None:
    assert not list(find("examples/q.yaml", "answer: 1\n", [Allowed("examples/*", "data")]))


def test_the_way_out_is_the_word_of_the_glossary() -> None:
    found = next(find("a.py", "# It tells.\n"))
    assert str(found) == "a.py:1: 'tells' (comment): report, notify, publish, log, show"
    assert all(instead(word) for word in ("asked", "goes on", "is no known", "left alone"))
