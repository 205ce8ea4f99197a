from typing import Any

import pytest

import autoglm
from autoglm.inference import __main__ as command
from autoglm.inference import app
from autoglm.inference.settings import InferenceSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[InferenceSettings]:
    """The settings that a pod would have run with."""
    seen: list[InferenceSettings] = []

    def run(settings: InferenceSettings) -> int:
        seen.append(settings)
        return 0 if settings.model_path != "bad" else 67

    monkeypatch.setattr(app, "run", run)
    return seen


@pytest.mark.parametrize(("use_gpu", "device"), [(None, "auto"), (True, "cuda"), (False, "cpu")])
def test_arguments_become_settings(
    served: list[InferenceSettings], use_gpu: bool | None, device: str
) -> None:
    autoglm.AutoGLMEngine(model_path="/m", max_batch_size=8, use_gpu=use_gpu).start_server(
        host="127.0.0.1", port=1234
    )
    (settings,) = served
    assert (settings.model_path, settings.max_num_seqs, settings.device) == ("/m", 8, device)
    assert settings.grpc_address == "127.0.0.1:1234"


def test_a_pod_that_cannot_serve_ends_the_program(served: list[Any]) -> None:
    with pytest.raises(SystemExit) as raised:
        autoglm.AutoGLMEngine("bad").start_server()
    assert raised.value.code == 67


def test_the_module_takes_the_common_flags(served: list[InferenceSettings]) -> None:
    command.main(["--model-path=/m", "--max-seq-length=4096", "--port=8080"])
    (settings,) = served
    assert (settings.model_path, settings.max_model_len) == ("/m", 4096)
    assert settings.grpc_address == "127.0.0.1:8080"


def test_wrong_values_are_named(
    served: list[InferenceSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--model-path=/m", "--max-seq-length=0"])
    assert "--max-model-len" in capsys.readouterr().err
    assert served == []
