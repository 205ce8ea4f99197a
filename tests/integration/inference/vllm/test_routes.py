"""Every route of vLLM's app is forwarded, served by pods, or denied with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from autoglm.validation.http_apis import (
    DENIED,
    INFERENCE_GETS,
    INFERENCE_POSTS,
    OWN,
    POD_GETS,
    STORED,
    is_served_by_pods,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


class AnyModel:
    """A model's configuration by which vLLM registers every route."""

    is_cross_encoder = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: "classify"


@pytest.fixture(params=["dev", "plain"])
def routes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """As (method, path)."""
    from vllm import envs, tasks
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.pooling.scoring.api_router import router as scoring
    from vllm.entrypoints.serve.profile.api_router import router as profile
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    envs.disable_envs_cache()
    options = []
    if request.param == "dev":
        monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
        monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        options = [
            "--enable-scale-out",
            "--enable-fault-tolerance",
            "--enable-tokenizer-info-endpoint",
        ]
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(options)
    # Tasks are a union of literals, of which some are literals of literals.
    every = tuple(
        task for one in get_args(tasks.SupportedTask) for task in (get_args(one) or (one,))
    )
    app = build_app(arguments, every, AnyModel())
    return set(_walk((*app.routes, *scoring.routes, *profile.routes)))


def _walk(found: Any) -> Iterator[tuple[str, str]]:
    for route in found:
        if hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods if method != "HEAD")
        elif hasattr(route, "routes"):
            yield from _walk(route.routes)
        else:
            yield "GET", route.path


def test_no_route_of_the_engines_app_is_in_no_list(routes: set[tuple[str, str]]) -> None:
    listed = {("POST", api.path) for api in INFERENCE_POSTS}
    listed |= {("GET", api.path) for api in INFERENCE_GETS}
    listed |= {("GET", path) for path in (*OWN, *POD_GETS)} | {*STORED}
    unlisted = {(method, path) for method, path in routes - listed if path not in DENIED}
    assert unlisted - {("POST", "/ping")} == set()
    assert len(routes) > 30


def test_pods_serve_no_route_that_is_denied(routes: set[tuple[str, str]]) -> None:
    denied = {(method, path) for method, path in routes if path in DENIED}
    assert denied
    assert not any(is_served_by_pods(method, path) for method, path in denied)
