"""The commands of pages are found, run, and compared with what the pages show."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.pages import __main__ as pages
from scripts.pages.blocks import BadPage, blocks, is_printed, on_this_machine, rehearsal
from scripts.pages.session import Failed, Session

PAGE = """
# A page

```sh run mark=first
echo one; export NAME=two
```

```text output
o...
```

```sh
not marked
```

```sh dry
autoglm up -f x.yaml
```
"""


def test_marked_blocks_are_found_with_what_they_print() -> None:
    run, dry = blocks(PAGE)

    assert (run.kind, run.mark, run.output, run.line) == ("run", "first", "o...\n", 4)
    assert (dry.kind, dry.commands) == ("dry", ["autoglm up -f x.yaml"])


@pytest.mark.parametrize(
    "page",
    ["```sh rnu\nls\n```\n", "```sh run times=2\nls\n```\n", "```text output\nx\n```\n"],
    ids=["kind", "option", "output first"],
)
def test_an_unknown_mark_is_an_error(page: str) -> None:
    with pytest.raises(BadPage, match="line 1"):
        blocks(page)


def test_a_text_that_a_command_reads_is_no_command() -> None:
    [block] = blocks("```sh run\ncat > a <<'EOF'\nx: 1\nEOF\nls \\\n  -l\n```\n")

    assert block.commands == ["cat > a <<'EOF'", "ls    -l"]


def test_a_python_block_is_one_command_of_python() -> None:
    [block] = blocks("```python run\nprint('a')\nprint('b')\n```\n")

    assert block.text == "python - <<'END_OF_PYTHON'\nprint('a')\nprint('b')\nEND_OF_PYTHON\n"
    assert len(block.commands) == 1


@pytest.mark.parametrize(
    ("command", "checks"),
    [
        ("autoglm serve Qwen/Qwen3-8B --gpus 1", "--print-manifest | autoglm validate -"),
        ("autoglm up -f a.yaml", "autoglm up -f a.yaml --dry-run"),
        ("autoglm deploy -c a.yaml --wait", "autoglm deploy -c a.yaml --dry-run"),
        ("kubectl apply -f a.yaml", "|| autoglm validate a.yaml"),
        ("helm install x chart --wait", "helm template x chart"),
        ("kubectl get agd", ""),
    ],
)
def test_a_dry_command_is_checked_without_what_it_needs(command: str, checks: str) -> None:
    assert rehearsal(command).endswith(checks)


def test_a_stand_in_takes_the_place_of_a_model_and_its_gpus() -> None:
    found = on_this_machine("serve hf://A/B --gpus 2", ["A/B", "C/D"], lambda name: f"/m/{name}")

    assert found == "serve /m/A/B"
    for kept in ("serve E/F --gpus 2", "serve A/B --gpus 2 --print-manifest"):
        assert on_this_machine(kept, ["A/B"], str) == kept


def test_output_is_compared_up_to_gaps_and_spaces() -> None:
    assert is_printed("a ... d\n", "a  b c\nd\n")
    assert not is_printed("a ... e\n", "a b c d\n")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    made = Session(tmp_path, {"PATH": "/usr/bin:/bin"})
    made.clone.mkdir()
    return made


def test_variables_live_on_in_the_next_block(session: Session) -> None:
    session.run("export NAME=two\n")

    assert session.run("echo $NAME\n") == "two\n"


def test_a_command_within_a_block_that_fails_ends_it(session: Session) -> None:
    with pytest.raises(Failed, match="exit code 1, not 0"):
        session.run("false\necho done\n")
    assert session.run("echo x; exit 3\n", exit_code=3) == "x\n"


def test_a_server_is_awaited_and_ended_by_an_interrupt(session: Session) -> None:
    server = "trap 'echo bye; exit 0' INT; echo ready: here; while true; do sleep 0.05; done\n"

    assert "ready: here" in session.serve(server)
    session.stop()
    assert "bye" in (session.scratch / "server.log").read_text()


def test_a_server_that_ends_first_is_a_failure(session: Session) -> None:
    with pytest.raises(Failed, match="ended before it was ready"):
        session.serve("echo no\n")


def test_a_page_that_does_something_else_fails_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOGLM_PAGES_ISOLATED", "1")
    monkeypatch.setattr(Session, "prepare", lambda self: self.clone.mkdir())
    (tmp_path / "good.md").write_text("```sh run mark=end\ntrue\n```\n")
    (tmp_path / "bad.md").write_text("```sh run\necho a\n```\n\n```text output\nb\n```\n")

    code = pages.main([str(tmp_path / "good.md"), str(tmp_path / "bad.md")])

    printed = capsys.readouterr().out
    assert code == 1
    assert [line.split()[-1] for line in printed.splitlines()[1:3]] == ["ok", "failed"]
    assert "end after" in printed


def test_every_page_marks_its_blocks_in_a_known_way() -> None:
    assert list(pages.marked_pages())
