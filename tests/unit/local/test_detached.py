"""A detached run has the manifests and options of the command that started it."""

from __future__ import annotations

from pathlib import Path

from autoglm.local.detached import decoded, encoded
from autoglm.local.manifest import Text
from autoglm.local.planning import Addresses
from autoglm.local.up import UpOptions


def test_manifests_and_options_reach_the_detached_process() -> None:
    given = UpOptions(
        run_dir=Path("run"),
        gateway=Addresses("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
        traces="console",
        gateway_flags=("--api-keys-file=keys.json",),
        watch=False,
        is_detached=True,
        table=False,
        program=("autoglm",),
    )

    sources, options = decoded(encoded([Path("a.yaml"), Text("kind: x")], given))

    assert sources == [Path("a.yaml"), Text("kind: x")]
    assert options == given
