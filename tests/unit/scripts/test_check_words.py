"""The check of words that the glossary replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import check_words


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rules = '[[allow]]\npaths = ["quiz.md"]\nphrase = "answers"\nreason = "a quiz"\n'
    (tmp_path / "allowed.toml").write_text(rules)
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    monkeypatch.setattr(check_words, "ALLOWED", tmp_path / "allowed.toml")
    return tmp_path


def test_a_banned_word_fails_and_is_named_with_its_line_and_its_replacement(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "a.md").write_text("The pod is ready.\nIt answers.\n")
    assert check_words.main(["a.md"]) == 1
    assert "a.md:2: 'answers' (text): response, respond" in capsys.readouterr().out


def test_files_with_the_terms_of_the_glossary_pass(tree: Path) -> None:
    (tree / "a.md").write_text("It responds.\n")
    assert check_words.main(["a.md"]) == 0


def test_an_allowed_phrase_passes_in_its_files_only(tree: Path) -> None:
    for name in ("quiz.md", "other.md"):
        (tree / name).write_text("Questions and answers.\n")
    assert check_words.main(["quiz.md"]) == 0
    assert check_words.main(["other.md"]) == 1


def test_strings_of_tests_are_data_and_their_names_are_not(tree: Path) -> None:
    (tree / "tests").mkdir()
    (tree / "tests/a.py").write_text('text = "ask"\n')
    (tree / "tests/b.py").write_text("def ask() -> None: ...\n")
    assert check_words.main(["tests/a.py"]) == 0
    assert check_words.main(["tests/b.py"]) == 1


@pytest.mark.parametrize("opening", ["What", "Whether", "Who", "Whose", "Of", "The", "An", "How"])
@pytest.mark.parametrize("owner", ["def f():", "async def f():", "class C:", "if True:"])
def test_a_docstring_begins_with_no_clause_and_that_of_a_function_with_a_verb(
    tree: Path, capsys: pytest.CaptureFixture[str], owner: str, opening: str
) -> None:
    is_function, is_noun = "def" in owner, opening in ("The", "An", "How")
    is_rejected = is_function or (owner == "class C:" and not is_noun)
    (tree / "services").mkdir()
    (tree / "services/a.py").write_text(f'{owner}\n    """{opening} it is."""\n')
    assert check_words.main(["services/a.py"]) == is_rejected
    message = f"services/a.py:2: '{opening.lower()}' (docstring): begin with a verb"
    assert (message in capsys.readouterr().out) == is_rejected


def test_a_docstring_may_state_what_is_returned(tree: Path) -> None:
    (tree / "services").mkdir()
    (tree / "services/a.py").write_text('"""Words."""\n\ndef f():\n    """Return whether."""\n')
    assert check_words.main(["services/a.py"]) == 0


def test_every_rule_has_a_reason() -> None:
    rules = check_words.allowed(check_words.ALLOWED.read_text())
    assert rules
    assert all(rule.reason for rule in rules)
