"""Options that several commands share: settings, connection, sampling, output, cluster."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar, Union, get_args, get_origin

import click

from autoglm.cli.reach import check_reach
from autoglm.client import Client, TlsFiles
from autoglm.common.errors import AutoGLMError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from autoglm.cli.cluster import Cluster
    from autoglm.common.settings import ProcessSettings

BAD_SETTINGS = 64
NOT_HEALTHY = 3
"""Exit code if a deployment is not healthy."""
Function = TypeVar("Function", bound=Callable[..., Any])
S = TypeVar("S", bound="ProcessSettings")


def examples(*lines: str) -> str:
    """Return an epilog with examples, which click does not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def settings_options(
    cls: type[ProcessSettings], only: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """Add a flag for each field of a settings class, or for those named; `load_settings` validates
    the values."""
    prefix = cls.model_config.get("env_prefix", "")

    def decorate(command: Function) -> Function:
        for name in reversed(only or tuple(cls.model_fields)):
            command = _setting(name, cls.model_fields[name], prefix)(command)
        return command

    return decorate


def _setting(name: str, field: FieldInfo, prefix: str) -> Callable[[Function], Function]:
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, UnionType):  # X | None
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    is_list = get_origin(annotation) is tuple
    text, notes = field.description or "", list[str]()
    if is_list and "repeated" not in text:
        notes.append("may be repeated")
    if (default := field.default) not in (None, "", ()):
        if isinstance(default, bool):
            default = "yes" if default else "no"
        elif isinstance(default, tuple):
            default = ",".join(map(str, default))
        notes.append(f"default: {default}")
    variables = getattr(field.validation_alias, "choices", None)
    variables = variables or [field.validation_alias or f"{prefix}{name.upper()}"]
    notes.append(f"env: {', '.join(map(str, variables))}")
    text, flag = f"{text}  [{'; '.join(notes)}]", name.replace("_", "-")
    if annotation is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=text)
    metavar = {int: "INTEGER", float: "NUMBER"}.get(annotation, "TEXT")
    if get_origin(annotation) is Literal:
        metavar = "[" + "|".join(map(str, get_args(annotation))) + "]"
    return click.option(f"--{flag}", name, multiple=is_list, metavar=metavar, help=text)


def load_settings(cls: type[S], flags: Mapping[str, Any]) -> S:
    """Load settings from flags and environment; exit with 64 and all problems on stderr."""
    from autoglm.common.settings import SettingsError

    try:
        return cls.load(flags)
    except SettingsError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(BAD_SETTINGS) from error


api_key_file_option = click.option(
    "--api-key-file",
    type=click.File(),
    envvar="AUTOGLM_API_KEY_FILE",
    show_envvar=True,
    metavar="FILE",
    help="File with an API key or a token. [default: $AUTOGLM_API_KEY]",
)

_CONNECTION = (
    click.option(
        "--address",
        default="127.0.0.1:50051",
        envvar="AUTOGLM_ADDRESS",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="gRPC address of a gateway or a pod.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline of each request.",
    ),
    *(
        click.option(
            f"--{flag}",
            flag.replace("-", "_"),
            default="",
            envvar=f"AUTOGLM_CLIENT_{flag.replace('-', '_').upper()}",
            show_envvar=True,
            metavar="FILE",
            help=text,
        )
        for flag, text in {
            "tls-ca-file": "CA certificates (PEM) to verify the server with; enables TLS.",
            "tls-cert-file": "Client certificate (PEM), for mTLS.",
            "tls-key-file": "Private key (PEM) of the client certificate.",
        }.items()
    ),
    api_key_file_option,
)

_SAMPLING = (
    click.option("--max-tokens", type=int, help="Maximum number of tokens to generate."),
    click.option("--temperature", type=float, help="Sampling temperature; 0 is greedy."),
    click.option("--top-p", type=float, help="Probability mass to sample from."),
    click.option("--top-k", type=int, help="Number of most likely tokens to sample from."),
    click.option("--seed", type=int, help="Seed for reproducible sampling."),
    click.option("--stop", multiple=True, help="Text that ends the response; may be repeated."),
)

model_option = click.option("--model", default="", help="Served name. [default: the only model]")
output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)

document_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Output format.",
)


def sampling_options(command: Function) -> Function:
    return _all(_SAMPLING, command)


def connection_options(command: Function) -> Function:
    return _all(_CONNECTION, command)


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add connection options; the command gets a Client as its first argument instead of them."""

    @functools.wraps(command)
    def run(client: Client, unreachable: AutoGLMError | None, **options: Any) -> Any:
        if unreachable is not None:
            raise unreachable
        return command(client, **options)

    return connects_if_possible(run)


def connects_if_possible(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `connects`; the second argument is why no server can be reached, None if one can be."""

    @functools.wraps(command)
    def connected(
        *,
        address: str,
        timeout: float,
        tls_ca_file: str,
        tls_cert_file: str,
        tls_key_file: str,
        api_key_file: TextIO | None,
        **options: Any,
    ) -> Any:
        tls = TlsFiles(tls_cert_file, tls_key_file, tls_ca_file)
        key = key_of(api_key_file) if api_key_file else None
        unreachable: AutoGLMError | None = None
        try:
            client = Client(address, timeout=timeout, tls=tls, api_key=key)
            check_reach(address, tls)
        except AutoGLMError as error:
            unreachable = error
        except OSError as error:
            raise click.UsageError(f"TLS: {error}") from error
        with client:
            return command(client, unreachable, **options)

    return connection_options(connected)


def key_of(file: TextIO) -> str:
    """Return the key in a file. Raises BadParameter where it has something else."""
    key = file.read().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter(
            f"{file.name}: the file has to contain one API key or token, and nothing else",
            param_hint="--api-key-file",
        )
    return key


def _all(options: tuple[Callable[[Any], Any], ...], command: Function) -> Function:
    for option in reversed(options):
        command = option(command)
    return command


def chosen_model(client: Client, name: str) -> str:
    """Return the given name, or the name of the only model. Raises ClickException."""
    return name or only_model([m.name for m in client.list_models() if not m.parent])


def only_model(names: Sequence[str]) -> str:
    """Return the name of the only available model. Raises ClickException."""
    if not names:
        raise click.ClickException(
            "the model is unknown: no model is available; `autoglm models` lists those that are, "
            "and `autoglm status` shows the cause"
        )
    if len(names) > 1:
        raise click.UsageError(f"several models are available; set --model to {', '.join(names)}")
    return names[0]


def given_text(words: tuple[str, ...]) -> str:
    """Return the arguments as one text, or standard input without arguments."""
    if words:
        return " ".join(words)
    text = "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    if not text:
        raise click.UsageError("missing text; pass it as an argument or on standard input")
    return text


@dataclass(frozen=True, slots=True)
class Where:
    """Cluster and namespaces that a command inspects."""

    namespace: str = ""
    """Empty: the namespace of the context."""
    is_everywhere: bool = False
    context: str = ""
    kubeconfig: str = ""

    @property
    def is_named(self) -> bool:
        return self != Where()

    def open(self) -> Cluster:
        # `status` also works in core installs, which have no Kubernetes client.
        from autoglm.cli.cluster import Cluster

        return Cluster(self.kubeconfig or None, self.context or None)

    def namespace_in(self, cluster: Cluster) -> str:
        """Return the namespace to inspect, empty for all."""
        return "" if self.is_everywhere else self.namespace or cluster.namespace


# With kubectl's names.
_CLUSTER = (
    click.option("-n", "--namespace", default="", help="Namespace. [default: the context's]"),
    click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
    click.option("--context", default="", help="Context of the kubeconfig. [default: current]"),
    click.option("--kubeconfig", default="", help="Kubeconfig file. [default: $KUBECONFIG]"),
)

watch_option = click.option(
    "-w", "--watch", is_flag=True, help="After listing, watch for changes until Ctrl-C."
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add options of a cluster; the command gets a Where as `where` instead of them."""

    @functools.wraps(command)
    def placed(
        *, namespace: str, all_namespaces: bool, context: str, kubeconfig: str, **options: Any
    ) -> Any:
        if namespace and all_namespaces:
            raise click.UsageError(f"-A and -n {namespace} exclude each other; give one")
        where = Where(namespace, all_namespaces, context, kubeconfig)
        return command(where=where, **options)

    return _all(_CLUSTER, placed)
