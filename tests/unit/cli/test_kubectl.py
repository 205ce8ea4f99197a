import sys
from typing import Any

import pytest

from autoglm import cli
from autoglm.cli.kubectl import Plugin, plugin
from autoglm.common.packages import install_command


def run(*args: str) -> int:
    return cli.run(args, plugin, "kubectl autoglm")


def test_plugin_has_the_clusters_commands_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: kubectl autoglm ")
    assert all(f"\n  {name} " in shown for name in Plugin.offered)
    assert "\n  gateway " not in shown


@pytest.mark.parametrize("name", list(Plugin.offered))
def test_its_commands_take_kubectls_options_and_none_of_a_gateway(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("-n,", "--context", "--kubeconfig", "-o,"))
    assert "--address" not in shown


@pytest.mark.parametrize(
    "args",
    [
        ("status", "--gateway", "x:1", "-k"),
        ("status", "--watch"),
        ("status", "-A", "-n", "models"),
        ("status", "chat", "-A"),
        ("explain", "chat", "-A"),
        ("explain",),
    ],
)
def test_options_that_exclude_each_other_are_wrong_usage(autoglm: Any, args: list[str]) -> None:
    assert autoglm(*args).code == 2


@pytest.mark.parametrize("missing", ["kubernetes", "rich"])
def test_cluster_without_its_packages_names_the_extra(
    autoglm: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("autoglm.cli.", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    result = autoglm("status", "-k")
    assert result.code == 1
    assert install_command("cli") in result.err


def test_no_cluster_says_what_to_give(autoglm: Any, tmp_path: Any) -> None:
    result = autoglm("status", "--kubeconfig", str(tmp_path / "none"))
    assert result.code == 1
    assert result.err.startswith("NoCluster: ") and "--kubeconfig" in result.err
