"""`autoglm operator`: flags are the fields of OperatorSettings."""

from __future__ import annotations

from typing import Any

import click

from autoglm.cli.options import examples, load_settings, settings_options
from autoglm.operator.settings import OperatorSettings


@click.command(
    epilog=examples(
        "autoglm operator --kubeconfig ~/.kube/config --no-leader-election",
        "autoglm operator --namespace team-a --namespace team-b",
        "AUTOGLM_INFERENCE_IMAGE=registry.example/open-autoglm-inference:0.1.0 autoglm operator",
    )
)
@settings_options(OperatorSettings)
def command(**flags: Any) -> int:
    """Run the operator, which reconciles AutoGLMDeployments on Kubernetes."""
    settings = load_settings(OperatorSettings, flags)
    from autoglm.operator.app import run

    return run(settings)
