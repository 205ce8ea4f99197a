"""Stages and sizes are read off vLLM's log and the files of a model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoglm.inference.engine import EngineOptions
from autoglm.inference.startup import Stage
from autoglm.inference.vllm import progress


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        ("", Stage.IMPORT),
        ("Starting to load model /m...", Stage.LOAD),
        ("Starting to load model /m...\nLoading weights took 3.2 seconds", Stage.LOAD),
        ("Starting to load model\nModel loading took 1 GiB memory", Stage.WARM_UP),
        ("Model loading took 1 GiB\nCompiling a graph for range 1", Stage.COMPILE),
        ("Compiling a graph\ntorch.compile takes 3 s\nCapturing CUDA graph shapes", Stage.WARM_UP),
    ],
)
def test_the_last_sentence_of_the_log_decides_the_stage(log: str, stage: Stage) -> None:
    assert progress.stage_in(log) is stage


def test_a_file_of_which_nothing_has_come_counts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as made:
        made.truncate(10_000_000)
    assert progress._bytes_on_disk(file) < 10_000


def test_a_sample_of_this_process_has_its_reads(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Starting to load model x")
    sample = progress._sample(EngineOptions(str(tmp_path)), log)
    assert (sample.stage, sample.log_bytes, sample.cached_bytes) == (Stage.LOAD, 24, 0)
    assert sample.io_bytes > 0 or not Path("/proc/self/io").exists()
    assert os.getpid() in progress._family(os.getpid())
