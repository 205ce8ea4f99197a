"""`autoglm inference`: flags are the fields of InferenceSettings."""

from __future__ import annotations

from typing import Any

import click

from autoglm.cli.options import examples, load_settings, settings_options
from autoglm.inference.settings import InferenceSettings


@click.command(
    epilog=examples(
        "autoglm inference --model-path examples/tiny-glm/model --model-name tiny-glm",
        "autoglm inference --model-path zai-org/GLM-4-9B-0414 --max-num-seqs 64",
        "MODEL_PATH=/models/glm-4 DEVICE=cpu autoglm inference",
    )
)
@settings_options(InferenceSettings)
def command(**flags: Any) -> int:
    """Run an inference pod: one engine behind gRPC and OpenAI REST."""
    settings = load_settings(InferenceSettings, flags)
    from autoglm.inference.app import run

    return run(settings)
