"""`autoglm chat`, `generate`, `predict` and `models`: requests to a gateway or a pod."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from autoglm import v1
from autoglm.cli.options import (
    chosen_model,
    connects,
    examples,
    given_text,
    model_option,
    output_option,
    sampling_options,
)
from autoglm.cli.output import as_dict, print_json, print_table
from autoglm.client import Client
from autoglm.common.errors import AutoGLMError

_HELP = "/reset clears the conversation, /exit or Ctrl-D ends it, Ctrl-C stops a response."


@click.command(
    epilog=examples(
        'autoglm generate "What is the gateway?"',
        'autoglm generate --max-tokens 64 --temperature 0 "Once upon a time"',
        "cat prompt.txt | autoglm generate --model tiny-glm --output json",
    )
)
@click.argument("prompt", nargs=-1)
@model_option
@sampling_options
@output_option
@connects
def generate(
    client: Client, prompt: tuple[str, ...], model: str, output: str, **sampling: Any
) -> None:
    """Complete PROMPT (or standard input) and stream the text."""
    text = given_text(prompt)
    model = chosen_model(client, model)
    if output == "json":
        print_json(as_dict(client.generate(text, model=model, **sampling)))
        return
    for chunk in client.generate_stream(text, model=model, **sampling):
        click.echo(chunk.text, nl=False)
    click.echo()


@click.command(
    epilog=examples(
        'autoglm predict --label good --label bad "I like it."',
        'autoglm predict --task "Which part is this about?" --label gateway --label operator TEXT',
        "autoglm predict --label spam --label ham --output json < mail.txt",
    )
)
@click.argument("text", nargs=-1)
@click.option("--label", "labels", multiple=True, help="A possible label; may be repeated.")
@click.option("--task", default="", help="Instruction for the model.")
@model_option
@output_option
@connects
def predict(
    client: Client,
    text: tuple[str, ...],
    labels: tuple[str, ...],
    task: str,
    model: str,
    output: str,
) -> None:
    """Classify TEXT (or standard input) over labels; without labels, generate a response."""
    prompt = given_text(text)
    model = chosen_model(client, model)
    response = client.predict(prompt, model=model, labels=labels, task=task)
    if output == "json":
        print_json(as_dict(response))
    elif response.labels:
        print_table(["LABEL", "SCORE"], [(s.label, f"{s.score:.4f}") for s in response.labels])
    else:
        click.echo(response.output)


@click.command(
    epilog=examples(
        "autoglm models",
        "autoglm models --address gateway.example:50051 --tls-ca-file ca.pem",
        "autoglm models --output json",
    )
)
@output_option
@connects
def models(client: Client, output: str) -> None:
    """List the available models."""
    found = client.list_models()
    if output == "json":
        print_json([as_dict(m) for m in found])
        return
    header, rows = models_table(found)
    print_table(header, rows)


def models_table(models: Sequence[v1.Model]) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return header and rows; aliases have a column where a model has some. Pure."""
    header = ["NAME", "ALIASES", "TASKS", "CONTEXT", "ENGINE", "READY"]
    rows: list[tuple[object, ...]] = [
        (
            model.name,
            ",".join(model.aliases) or "-",
            ",".join(model.tasks),
            model.max_model_len or "-",
            model.engine,
            model.ready_endpoints or "-",
        )
        for model in models
    ]
    if any(model.aliases for model in models):
        return header, rows
    return [header[0], *header[2:]], [(row[0], *row[2:]) for row in rows]


@click.command(
    epilog=examples(
        "autoglm chat",
        'autoglm chat "What is Open-AutoGLM?"',
        'autoglm chat --system "Be brief." --temperature 0 --max-tokens 100 "Who are you?"',
        'echo "Who are you?" | autoglm chat --output json',
    )
)
@click.argument("message", nargs=-1)
@click.option("--system", default="", help="System message of the conversation.")
@model_option
@sampling_options
@output_option
@connects
def chat(
    client: Client,
    message: tuple[str, ...],
    system: str,
    model: str,
    output: str,
    **sampling: Any,
) -> None:
    """Send MESSAGE (or standard input) to a model and stream its response.

    On a terminal and without MESSAGE, start a conversation.
    """
    conversation = _Conversation(client, chosen_model(client, model), system, sampling)
    if not message and output == "text" and sys.stdin.isatty():
        _converse(conversation)
        return
    conversation.messages.append(v1.ChatMessage(role="user", content=given_text(message)))
    if output == "json":
        print_json(
            as_dict(client.chat(conversation.messages, model=conversation.model, **sampling))
        )
    else:
        conversation.stream_response()


@dataclass
class _Conversation:
    """The messages of a conversation, and the request for the next one."""

    client: Client
    model: str
    system: str
    sampling: dict[str, Any]
    messages: list[v1.ChatMessage] = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        system = v1.ChatMessage(role="system", content=self.system)
        self.messages = [system] if self.system else []

    def stream_response(self) -> None:
        """Print the next message as it is generated and add it to the conversation."""
        content = ""
        for chunk in self.client.chat_stream(self.messages, model=self.model, **self.sampling):
            delta = chunk.delta
            content += delta.content
            if delta.reasoning:
                click.secho(delta.reasoning, dim=True, nl=False)
            click.echo(delta.content, nl=False)
            for call in delta.tool_calls:
                click.secho(f"\n[{call.name}] " if call.name else "", fg="cyan", nl=False)
                click.echo(call.arguments, nl=False)
        click.echo()
        self.messages.append(v1.ChatMessage(role="assistant", content=content))

    def send(self, text: str) -> None:
        """Send a message; on failure the conversation stays unchanged."""
        turns = len(self.messages)
        self.messages.append(v1.ChatMessage(role="user", content=text))
        try:
            self.stream_response()
        except AutoGLMError as error:
            click.echo(f"{error.reason}: {error.message}", err=True)
            del self.messages[turns:]
        except KeyboardInterrupt:
            click.echo()
            del self.messages[turns:]


def _converse(conversation: _Conversation) -> None:
    if importlib.util.find_spec("readline"):
        # Enables line editing and history in input().
        importlib.import_module("readline")
    click.secho(f"{conversation.model}. {_HELP}", dim=True)
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            click.echo()
            return
        if text in ("/exit", "/quit"):
            return
        if text == "/reset":
            conversation.reset()
        elif text:
            conversation.send(text)
