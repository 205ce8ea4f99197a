"""`autoglm gateway`: flags are the fields of GatewaySettings."""

from __future__ import annotations

from typing import Any

import click

from autoglm.cli.options import examples, load_settings, settings_options
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
    from autoglm.gateway.app import run

    return run(settings, exposed=GatewaySettings.exposed_flags(flags))
