"""`python -m autoglm.inference`: serve a model with the few settings most people want.

`autoglm inference` has all of them; the environment is read here as well.
"""

from __future__ import annotations

import argparse

from autoglm.common.settings import SettingsError
from autoglm.inference.python_api import AutoGLMEngine


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m autoglm.inference", description="Serve a model.")
    parser.add_argument("--model-path", required=True, help="a directory or a hub name")
    parser.add_argument("--max-seq-length", type=int, help="tokens of prompt and completion")
    parser.add_argument("--max-batch-size", type=int, help="requests worked on at once")
    parser.add_argument("--host", default="127.0.0.1", help="where to serve (%(default)s)")
    parser.add_argument("--port", type=int, default=50051, help="for gRPC (%(default)s)")
    given = parser.parse_args(arguments)
    length = {"max_model_len": given.max_seq_length} if given.max_seq_length is not None else {}
    engine = AutoGLMEngine(given.model_path, given.max_batch_size, settings=length)
    try:
        engine.start_server(given.host, given.port)
    except SettingsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
