"""Causes of death, from logs and exceptions."""

import signal

import pytest

from autoglm.inference.vllm.failure.postmortem import attach, first_failure, root_cause, sentence

WORKER = """WorkerProc failed to start.
Traceback (most recent call last):
  File "worker.py", line 1, in main
    load()
    ^^^^^^
vllm.errors.NoWeights: no weights in /m
look for *.safetensors"""
CORE = """EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 1, in main
Exception: see root cause above"""


def test_the_first_traceback_of_another_process_counts() -> None:
    log = f"\x1e7 {CORE}\n\x1e8 a plain error\n\x1e9 {WORKER}\n\x1e8 {CORE}\n"

    assert first_failure(log, own_pid=7) == WORKER


def test_no_record_is_no_failure() -> None:
    assert first_failure("", own_pid=7) == ""


def test_the_root_cause_is_the_other_process_s_exception() -> None:
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    attach(error, WORKER)

    assert root_cause(error) == "NoWeights: no weights in /m\nlook for *.safetensors"


def test_the_root_cause_in_this_process_is_the_deepest() -> None:
    error = RuntimeError("outer")
    error.__cause__ = KeyError("inner")

    assert root_cause(error) == "KeyError: 'inner'"


@pytest.mark.parametrize(
    ("failure", "codes", "said"),
    [
        (WORKER, {"EngineCore": 1}, "NoWeights: no weights in /m"),
        ("", {"EngineCore": -signal.SIGKILL}, "EngineCore was killed with SIGKILL, as the kernel"),
        ("", {"EngineCore": -signal.SIGTERM}, "EngineCore was killed with SIGTERM"),
        ("", {"EngineCore": 3}, "EngineCore ended with exit code 3"),
        ("", {}, "can no longer be reached"),
    ],
)
def test_death_in_one_sentence(failure: str, codes: dict[str, int], said: str) -> None:
    assert said in sentence(failure, codes)
