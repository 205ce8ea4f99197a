import pytest

from autoglm.common.settings import SettingsError
from autoglm.inference.settings import Fault, InferenceSettings


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("MODEL_PATH", "/m", "model_path", "/m"),
        ("MODEL_NAME", "m", "model_name", "m"),
        ("MAX_BATCH_SIZE", "8", "max_num_seqs", 8),
        ("DEVICE", "cpu", "device", "cpu"),
        ("LOG_LEVEL", "debug", "log_level", "debug"),
        ("AUTOGLM_MODEL_ALIAS", "a,b", "model_alias", ("a", "b")),
        ("AUTOGLM_MAX_MODEL_LEN", "2048", "max_model_len", 2048),
    ],
)
def test_variables_are_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(InferenceSettings.load({}), name) == expected


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("engine_arg", ("novalue",)),
        ("adapter", ("=path",)),
        ("echo_fail", "explode"),
        ("max_num_seqs", 0),
        ("gpu_memory_utilization", 1.5),
        ("device", "tpu"),
        ("http_address", "8000"),
    ],
)
def test_bad_values_are_refused_by_their_flag(flag: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"--{flag.replace('_', '-')} "):
        InferenceSettings.load({flag: value})


def test_engine_arguments_keep_their_types() -> None:
    pairs = ("enforce_eager=true", "max_num_batched_tokens=512", 'x={"a": 1}', "y=a=b")
    options = InferenceSettings.load({"model_path": "m", "engine_arg": pairs}).engine_options()
    assert dict(options.engine_args) == {
        "enforce_eager": True,
        "max_num_batched_tokens": "512",
        "x": {"a": 1},
        "y": "a=b",
    }


def test_adapters_switch_lora_on() -> None:
    options = InferenceSettings.load({"adapter": ("poet=/poet",)}).engine_options()
    assert dict(options.engine_args) == {"enable_lora": True, "lora_modules": ["poet=/poet"]}


def test_the_model_path_is_the_name_when_none_is_given() -> None:
    assert InferenceSettings.load({"model_path": "/m"}).served_name == "/m"
    assert InferenceSettings.load({"engine": "echo"}).served_name == "echo"


def test_the_echo_engine_gets_its_faults_and_rates() -> None:
    flags = {"engine": "echo", "echo_fail": "after-tokens=3", "echo_token_rate": 50}
    echo = InferenceSettings.load(flags).echo_settings()
    assert echo.fault == Fault("after-tokens", 3)
    assert echo.rates.token_rate == 50
