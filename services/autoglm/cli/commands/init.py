"""`autoglm init`: writes a commented manifest to start from."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from autoglm.api.documents import parse_manifest
from autoglm.api.short_form import name_of
from autoglm.cli.commands.serve import served_name_of, uri_of
from autoglm.cli.options import examples

_HEAD = """\
# Run it here:            autoglm up -f {file}
# Deploy to Kubernetes:   autoglm deploy -c {file}
# A field by its path:    autoglm explain agd.spec.model.cache
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata:
  name: {name}
spec:
  # Copies that share the requests; `up` restarts only what changed when this file is saved.
  replicas: 1
  model:
"""
_MODEL = """\
    # A name on the hub (ORG/NAME), or the path of a directory with config.json and weights.
    uri: {uri}
    # A branch, tag or commit of the hub; a commit serves the same weights at every start.
    # revision: main
    # The name in requests, and others for the same model.
    servedName: {served}
    # aliases: [default]
    # Most tokens of prompt and output together; a smaller number needs less memory.
    # maxModelLen: 16384
    # Quantizes weights while loading, and the KV cache.
    # quantization: {{method: fp8, kvCacheDtype: fp8}}
  # engine:
    # Requests that are computed at once.
    # maxNumSeqs: 64
    # GPUs of a replica, which it splits the model over.
    # parallelism: {{tensor: 2}}
    # Flags of `vllm serve`. Code of the model's own runs only with trust_remote_code.
    # args: {{enable_auto_tool_choice: true, tool_call_parser: hermes}}
    # A token of the hub for a gated model; `up` reads it from your environment too.
    # env: [{{name: HF_TOKEN, valueFrom: {{secretKeyRef: {{name: hf-token, key: token}}}}}}]
  # What a pod requests on Kubernetes; `autoglm size` computes it.
  # resources:
    # requests: {{cpu: 4, memory: 24Gi}}
    # limits: {{nvidia.com/gpu: 2}}
"""
_ECHO = """\
    # The echo engine has no weights: it responds with the words of the prompt. To serve a model,
    # remove `engine` below and set, for example:
    # uri: Qwen/Qwen3-0.6B
    maxModelLen: 8192
  engine:
    type: echo
"""


@click.command(
    epilog=examples(
        "autoglm init --model Qwen/Qwen3-8B",
        "autoglm init --model ./my-model --output my-model.yaml",
        "autoglm init --output - | autoglm validate -",
    )
)
@click.option("--model", default="", help="A hub name or a directory. [default: the echo engine]")
@click.option("--output", default="", metavar="FILE", help="[default: NAME.yaml; - is stdout]")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def command(model: str, output: str, force: bool) -> None:
    """Write a manifest with comments to start from."""
    uri = uri_of(model) if model else ""
    served = served_name_of(uri) if uri else "echo"
    file = Path(output or f"{name_of(served)}.yaml")
    text = manifest(uri, served, "FILE" if output == "-" else str(file))
    if output == "-":
        click.echo(text, nl=False)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        message = f"{file} exists; choose another --output, or overwrite it with --force"
        raise click.ClickException(message) from error
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {file}. Next:\n")
    click.echo(f"  autoglm precheck --local -f {file}   # does it fit here?")
    click.echo(f"  autoglm up -f {file}                 # serve it on this machine")


def manifest(uri: str, served: str, file: str) -> str:
    """Return a manifest that is valid; of the echo engine without a uri. Raises InvalidSpec."""
    body = _MODEL if uri else _ECHO
    plain = yaml.safe_dump([uri, served], default_flow_style=False).splitlines()
    fields = {"uri": plain[0][2:], "served": plain[1][2:]}
    text = (_HEAD + body).format(name=name_of(served), file=file, **fields)
    parse_manifest(yaml.safe_load(text))
    return text
