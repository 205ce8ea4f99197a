"""Authentication in the pipeline: what it lets pass, and what a caller learns."""

from __future__ import annotations

import logging
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.responses import opened

from autoglm import v1
from autoglm.common import errors
from autoglm.gateway.admission import Admission, AdmissionSettings
from autoglm.gateway.endpoints.endpoint import Load, Loaded, ModelsDiscovered
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.pipeline import LocalPage, Pipeline
from autoglm.gateway.request.memory_budget import Memory, MemoryReservation
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.principal import ANONYMOUS, Principal, Role
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    whole,
)
from autoglm.gateway.request_telemetry import Observer
from autoglm.validation import Operation, RequestInfo

NAMES = ("glm-4", "glm-5", "hidden")
ALICE = Principal("acme", "alice", models=("glm-*",))


class Stage:
    """A pipeline that takes everyone for `principal`; what came through it is kept."""

    def __init__(self, make: Any, principal: Principal | errors.AutoGLMError | None) -> None:
        pool = Pool(Random(0))
        pool.change_endpoints((), [make.endpoint()], 0)
        models = tuple(v1.Model(name=name, max_model_len=2048) for name in NAMES)
        for event in (ModelsDiscovered(models), Loaded(Load(max_num_seqs=8))):
            pool.apply(make.endpoint().url, event, 0)
        self.passed: list[GatewayRequest] = []

        async def identify(_: GatewayRequest) -> Principal:
            assert principal is not None
            if isinstance(principal, errors.AutoGLMError):
                raise principal
            return principal

        async def proxy(request: GatewayRequest, _: RequestRecord, deliver: Deliver) -> None:
            await deliver(respond(request))

        def respond(request: GatewayRequest) -> Response:
            self.passed.append(request)
            return Response(whole(b"x"))

        metrics = Metrics(CollectorRegistry())
        observer = Observer(metrics, NAMES.__contains__, lambda: 1.0)
        admission = Admission(pool, AdmissionSettings(1), metrics, clock=lambda: 0.0)
        who = identify if principal is not None else None
        memory = Memory(2**30)
        self.pipeline: Handler = Pipeline(pool, admission, observer, memory, proxy, who)
        self.local: Handler = LocalPage(respond, observer, memory, who)

    async def send(self, request: GatewayRequest, local: bool = False) -> GatewayRequest:
        async with opened(self.local if local else self.pipeline, request):
            return self.passed[-1]


@pytest.mark.parametrize(
    ("roles", "infers"),
    [({Role.USER}, True), ({Role.ADMIN}, True), ({Role.AUDITOR}, False), (set(), False)],
)
async def test_roles_say_who_may_infer_and_any_role_may_look(
    make: Any, roles: set[Role], infers: bool
) -> None:
    stage = Stage(make, Principal("acme", "alice", frozenset(roles)))
    if infers:
        assert (await stage.send(make.request("glm-4"))).principal.tenant == "acme"
    else:
        with pytest.raises(errors.PermissionDenied, match="needs the role Admin or User"):
            await stage.send(make.request("glm-4"))
    if roles:
        await stage.send(make.request("glm-4"), local=True)
    else:
        with pytest.raises(errors.PermissionDenied):
            await stage.send(make.request("glm-4"), local=True)


async def test_stranger_learns_nothing_but_that_they_are_one(make: Any) -> None:
    stage = Stage(make, errors.Unauthenticated("who?"))
    problem = errors.InvalidRequest("bad bytes")
    for request in (
        make.request("glm-4"),
        make.request("none"),
        make.request(info=None, problem=problem),
    ):
        with pytest.raises(errors.Unauthenticated):
            await stage.send(request)
    assert stage.passed == []


@pytest.mark.parametrize("name", ["hidden", "not-served"])
async def test_model_that_may_not_be_used_is_refused_alike_whether_it_is_served(
    make: Any, name: str
) -> None:
    with pytest.raises(errors.PermissionDenied) as caught:
        await Stage(make, ALICE).send(make.request(name))
    assert caught.value.message == (
        f"model {name!r} is not among the models that you may use; "
        "list the models, or use a credential that allows it"
    )


@pytest.mark.parametrize("name", ["glm-9", ""])
async def test_wrong_model_names_only_those_that_may_be_used(make: Any, name: str) -> None:
    with pytest.raises((errors.ModelNotFound, errors.InvalidRequest)) as caught:
        await Stage(make, ALICE).send(make.request(name))
    assert "'glm-4', 'glm-5'" in caught.value.message
    assert "hidden" not in caught.value.message


async def test_pods_do_not_get_the_credential_where_it_was_meant_for_the_gateway(
    make: Any,
) -> None:
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-other": "1"}
    request = make.request("glm-4", headers=headers)
    assert (await Stage(make, ALICE).send(request)).headers == {"x-other": "1"}
    assert (await Stage(make, None).send(request)).headers == headers


async def test_log_line_has_tenant_and_subject_and_no_credential(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = (("authorization", "Bearer hush"),)
    request = make.request("glm-4", credentials=credentials, headers={"x-api-key": "hush"})
    assert "hush" not in repr(request)
    with caplog.at_level(logging.DEBUG):
        await Stage(make, ALICE).send(request)
    (record,) = [r for r in caplog.records if r.name == "autoglm.gateway.request"]
    assert (vars(record)["fields"]["tenant"], vars(record)["fields"]["subject"]) == (
        "acme",
        "alice",
    )
    assert "hush" not in str([vars(r) for r in caplog.records])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["tenant", "x-tenant", "x-autoglm-tenant", "x-forwarded-user", "from", "x-api-key"]
        ),
        st.text(max_size=9),
    ),
    session=st.text(max_size=5),
)
async def test_nothing_of_a_request_but_its_credential_says_whose_it_is(
    make: Any, headers: dict[str, str], session: str
) -> None:
    info = RequestInfo(Operation.GENERATE, "glm-4", session=session)
    request = make.request(info=info, headers=headers, trace_headers=headers)
    assert (await Stage(make, ALICE).send(request)).principal is ALICE
    assert (await Stage(make, None).send(request)).principal is ANONYMOUS


@pytest.mark.parametrize("local", [False, True])
async def test_body_of_a_stranger_is_never_read(make: Any, local: bool) -> None:
    read = 0

    async def receive(request: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
        nonlocal read
        read += 1
        return request

    stage = Stage(make, errors.Unauthenticated("who?"))
    with pytest.raises(errors.Unauthenticated):
        await stage.send(make.request(info=None, receive=receive), local)
    assert read == 0
