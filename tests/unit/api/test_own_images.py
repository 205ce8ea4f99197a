"""Where an image of ours cannot be pulled, the way to get it is said."""

import pytest

from autoglm.api.own_images import pull_remedy


@pytest.mark.parametrize(
    ("text", "image", "directory"),
    [
        ("open-autoglm:0.1.0", "open-autoglm:0.1.0", "open-autoglm"),
        (
            'failed to pull "docker.io/library/open-autoglm-inference:0.1.0": not found',
            "open-autoglm-inference:0.1.0",
            "inference",
        ),
        (
            'Container image "open-autoglm-inference:0.1.0-cpu" is not present with pull policy of '
            "Never",
            "open-autoglm-inference:0.1.0-cpu",
            "inference-cpu",
        ),
    ],
)
def test_an_image_without_a_registry_is_built_and_loaded(
    text: str, image: str, directory: str
) -> None:
    said = pull_remedy(text)
    assert said.startswith(f"no registry publishes {image}: ")
    assert f"`make images IMAGES={directory}`" in said
    assert f"`make cluster-load IMAGES={directory}`" in said
    assert "image.registry of the chart" in said


def test_an_image_of_a_registry_is_pushed_there_or_needs_a_secret() -> None:
    said = pull_remedy('image "registry.example.com:5000/ai/open-autoglm:0.1.0": unauthorized')
    assert "`make images IMAGES=open-autoglm REGISTRY=registry.example.com:5000/ai`" in said
    assert "imagePullSecrets" in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vllm/vllm-openai:v0.32.0",
        "open-autoglm-tools:1",
        "my-open-autoglm:1",
        "a/open-autoglm/b",
    ],
)
def test_images_of_others_are_left_to_the_usual_remedy(text: str) -> None:
    assert pull_remedy(text) == ""


def test_the_remedy_is_found_again_in_a_message_that_has_it() -> None:
    said = pull_remedy("open-autoglm-inference:0.1.0-cpu")
    assert pull_remedy(f"cannot pull image; {said}") == said
