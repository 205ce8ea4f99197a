"""`AutoGLMEngine`: one engine served from a Python program, without a command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AutoGLMEngine:
    """A model to serve.

    `max_batch_size` is the most requests worked on at once, `use_gpu` chooses the device (None
    leaves it to what is installed), and `settings` takes every other setting of
    `autoglm inference` by its Python name.
    """

    model_path: str
    max_batch_size: int | None = None
    use_gpu: bool | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def start_server(self, host: str = "127.0.0.1", port: int = 50051) -> None:
        """Serve gRPC on `port` until SIGTERM or Ctrl-C; then drain and return.

        REST and metrics have the addresses of `settings`, or else free ports. Raises SettingsError
        for invalid settings, and SystemExit with a pod's exit code when the engine cannot be
        served.
        """
        from autoglm.inference.app import run
        from autoglm.inference.settings import InferenceSettings

        if code := run(InferenceSettings.load(self.flags(host, port))):
            raise SystemExit(code)

    def flags(self, host: str, port: int) -> dict[str, Any]:
        """Return the settings by name."""
        devices = {None: None, True: "cuda", False: "cpu"}
        return {
            "model_path": self.model_path,
            "max_num_seqs": self.max_batch_size,
            "device": devices[self.use_gpu],
            "grpc_address": f"{host}:{port}",
            "http_address": f"{host}:0",
            "metrics_address": f"{host}:0",
            "log_format": "text",
            **self.settings,
        }
