"""`autoglm gateway`, `inference` and `operator`, with a flag for each field of their settings.

Functions return the commands, since the settings of a service need the packages of its extra.
"""

from __future__ import annotations

from typing import Any

import click

from autoglm.cli.options import examples, load_settings, settings_options


def gateway() -> click.Command:
    """Return the command `autoglm gateway`. Raises ModuleNotFoundError without its extra."""
    from autoglm.gateway.settings import GatewaySettings

    @click.command(
        epilog=examples(
            "autoglm gateway --endpoint grpc://127.0.0.1:50061 --endpoint grpc://127.0.0.1:50062",
            "autoglm gateway --endpoint http://127.0.0.1:8000 --http-address 127.0.0.1:8081",
            "autoglm gateway --endpoint https://api.example/v1 --upstream-api-key-file key.txt",
            "autoglm gateway --kubernetes --namespace team-a",
            "autoglm gateway --http-address 0.0.0.0:8080 --api-keys-file keys.json",
            "autoglm gateway --data-plane envoy --endpoint grpc://10.0.0.1:50051",
            "AUTOGLM_ENDPOINT=grpc://10.0.0.1:50051,grpc://10.0.0.2:50051 autoglm gateway",
        )
    )
    @settings_options(GatewaySettings)
    def command(**flags: Any) -> int:
        """Run a gateway, which routes gRPC and REST requests to pods."""
        settings = load_settings(GatewaySettings, flags)
        from autoglm.gateway.process import run

        return run(settings, exposed=GatewaySettings.exposed_flags(flags))

    return command


def inference() -> click.Command:
    """Return the command `autoglm inference`. Raises ModuleNotFoundError without its extra."""
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

    return command


def operator() -> click.Command:
    """Return the command `autoglm operator`. Raises ModuleNotFoundError without its extra."""
    from autoglm.operator.settings import OperatorSettings

    @click.command(
        epilog=examples(
            "autoglm operator --kubeconfig ~/.kube/config --no-leader-election",
            "autoglm operator --namespace team-a --namespace team-b",
            "AUTOGLM_INFERENCE_IMAGE=registry.example/open-autoglm-inference:0.1.0 "
            "autoglm operator",
        )
    )
    @settings_options(OperatorSettings)
    def command(**flags: Any) -> int:
        """Run the operator, which reconciles AutoGLMDeployments on Kubernetes."""
        settings = load_settings(OperatorSettings, flags)
        from autoglm.operator.app import run

        return run(settings)

    return command
