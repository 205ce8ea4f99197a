"""`autoglm load` fills a cache once, as pods find it, and says in one sentence why it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.fake_hub import COMMIT, TOKEN, Hub, Model, fake_hub
from tests.support.fake_s3 import fake_s3

from autoglm.api.uri import directory_of

FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(range(256)) * 400}


def downloads(hub: Hub, file: str) -> int:
    return sum(m == "GET" and path.endswith(f"/{file}") for m, path, _ in hub.requests)


def load(autoglm: Any, tmp_path: Path, hub: str, *more: str, **variables: str) -> Any:
    given = ("--directory", str(tmp_path / "models"), "--uri", "org/model")
    message = ("--termination-message-file", str(tmp_path / "message"))
    return autoglm("load", *given, *message, *more, hub=hub, **variables)


def test_a_model_is_downloaded_once_into_the_directory_that_pods_read(
    autoglm: Any, tmp_path: Path
) -> None:
    with fake_hub(org__model=Model(FILES)) as hub:
        first = load(autoglm, tmp_path, hub.url, "--revision", "main")
        requests = len(hub.requests)
        second = load(autoglm, tmp_path, hub.url, "--revision", "main")

        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert len(hub.requests) == requests
    path = tmp_path / "models" / directory_of("hf://org/model", "main")
    assert (path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert json.loads((path / ".autoglm-loaded.json").read_text())["revision"] == COMMIT


def test_of_two_loaders_on_one_volume_one_downloads(autoglm: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autoglm", "load", "--directory", str(tmp_path / "models")]
    with fake_hub(org__model=Model(FILES)) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        env = os.environ | own | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        both = [subprocess.Popen([*command, "--uri", "org/model"], env=env) for _ in range(2)]
        assert [each.wait(timeout=50) for each in both] == [0, 0]
        assert downloads(hub, "model.safetensors") == 1


def test_a_gated_model_is_a_diagnosis_until_a_token_opens_it(autoglm: Any, tmp_path: Path) -> None:
    with fake_hub(org__model=Model(FILES, is_gated=True)) as hub:
        rejected = load(autoglm, tmp_path, hub.url)
        message = (tmp_path / "message").read_text()
        accepted = load(autoglm, tmp_path, hub.url, HF_TOKEN=TOKEN)

    assert rejected.returncode == 76
    assert message.startswith("GatedModel: org/model is gated: accept its terms at")
    assert accepted.returncode == 0, accepted.stderr


def test_an_unknown_model_and_a_silent_hub_have_codes_of_their_own(
    autoglm: Any, tmp_path: Path
) -> None:
    with fake_hub() as hub:
        assert load(autoglm, tmp_path, hub.url).returncode == 66
    assert (tmp_path / "message").read_text().startswith("ModelNotFound: org/model")
    assert load(autoglm, tmp_path, "http://127.0.0.1:9").returncode == 81
    assert (tmp_path / "message").read_text().startswith("HubUnreachable: ")


def test_a_model_of_a_bucket_is_downloaded_with_the_credentials_of_the_environment(
    autoglm: Any, tmp_path: Path
) -> None:
    uri, models = "s3://bucket/team/glm", tmp_path / "models"
    with fake_s3({f"team/glm/{name}": data for name, data in FILES.items()}) as store:
        env = {
            "AWS_ENDPOINT_URL": store.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "reader",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        result = autoglm("load", "--directory", str(models), "--uri", uri, hub="", **env)
        assert result.returncode == 0, result.stderr
        assert all("Credential=reader/" in each for each in store.authorizations)
    found = models / directory_of(uri)
    assert {name: (found / name).read_bytes() for name in FILES} == FILES
