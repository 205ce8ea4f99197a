"""`autoglm explain-route`: shows where a gateway would route a request, and why.

Sends an OpenAI body or a text with `x-autoglm-debug: explain`, so that no pod gets the request, and
prints the gateway's decision trace.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, TextIO

import click
from click.core import ParameterSource

from autoglm.cli.options import (
    api_key_file_option,
    document_option,
    examples,
    given_text,
    key_of,
    only_model,
)
from autoglm.cli.output import document, print_table

_SECONDS = 10.0
_COLUMNS = {
    "CANDIDATE": "endpoint",
    "SCORE": "score",
    "BLOCKS HELD": "blocks_held",
    "IN USE": "share_in_use",
    "OURS": "in_flight",
    "OTHERS": "others",
    "KV CACHE": "kv_cache_usage",
}


@click.command(
    epilog=examples(
        'autoglm explain-route "What is Open-AutoGLM?"',
        "autoglm explain-route --request body.json --output json",
        "autoglm explain-route --url https://gateway.example --api-key-file key.txt Hello",
    )
)
@click.argument("text", nargs=-1)
@click.option("--model", default="", help="Served name; overrides the request's.")
@click.option(
    "--request",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with a body for /v1/chat/completions (`messages`) or /v1/completions.",
)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    envvar="AUTOGLM_URL",
    show_default=True,
    show_envvar=True,
    help="REST address of the gateway.",
)
@api_key_file_option
@click.option(
    "--api-key",
    default="",
    envvar="AUTOGLM_API_KEY",
    show_envvar=True,
    help="API key of role Admin. Visible in the process list; prefer --api-key-file.",
)
@click.pass_context
@document_option
def command(
    context: click.Context,
    text: tuple[str, ...],
    model: str,
    file: Path | None,
    url: str,
    api_key_file: TextIO | None,
    api_key: str,
    output: str,
) -> int:
    """Show where a gateway would route a request, and why. No pod gets the request.

    The gateway must run with --route-debug, or the key must have the role Admin.
    """
    if context.get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
        warning = "--api-key is visible in the process list; use --api-key-file or $AUTOGLM_API_KEY"
        click.echo(warning, err=True)
    if api_key_file is not None:
        api_key = key_of(api_key_file)
    body = _body(text, file)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    body["model"] = model or body.get("model")
    if not body["model"]:
        cards = _send(urllib.request.Request(f"{url}/v1/models", headers=headers))["data"]
        body["model"] = only_model([card["id"] for card in cards if not card.get("parent")])
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    headers |= {"content-type": "application/json", "x-autoglm-debug": "explain"}
    found = _send(urllib.request.Request(url + path, json.dumps(body).encode(), headers))
    if output != "text":
        click.echo(document(found, output), nl=False)
        return 0
    click.echo(f"{found['model']} -> {found['endpoint']}")
    click.echo(f"  policy {found['policy']}, decided by {found['reason']}: {found['why']}")
    click.echo(f"  prompt: about {found['prompt_tokens']} tokens, {found['prompt_blocks']} blocks")
    click.echo(f"\nCandidates after filters: {found['candidates_left']}")
    rows = [[c[name] for name in _COLUMNS.values()] for c in found["candidates"]]
    print_table(list(_COLUMNS), rows)
    return 0


def _body(text: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    if file is None:
        return {"messages": [{"role": "user", "content": given_text(text)}]}
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{file} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise click.ClickException(f"{file} is not a JSON object")
    return body


def _send(request: urllib.request.Request) -> dict[str, Any]:
    if not request.full_url.startswith(("http://", "https://")):
        raise click.UsageError(f"--url is {request.full_url!r:.60}, not http(s)://HOST:PORT")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except urllib.error.HTTPError as error:
        with error:
            try:
                message = str(json.loads(error.read())["error"]["message"])
            except (ValueError, LookupError, TypeError):
                message = f"the gateway responded with status {error.code}"
        raise click.ClickException(message) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"no response from {request.full_url}: {error}") from error
