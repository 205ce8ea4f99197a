"""Failures are reported in the manifest's words, and reach clients through the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoglm.api import AutoGLMDeployment, parse
from autoglm.common.process import ExitCode
from autoglm.gateway.endpoints.static_discovery import endpoints_of_file
from autoglm.local import endpoints
from autoglm.local.child import Failure, Files
from autoglm.local.member import Member
from autoglm.local.planning import Addresses, Process, Replica, State, Workload
from autoglm.local.statuses import explained, status_of


def resource(**model: Any) -> AutoGLMDeployment:
    return parse(
        {
            "apiVersion": "autoglm.io/v1alpha1",
            "kind": "AutoGLMDeployment",
            "metadata": {"name": "m"},
            "spec": {"model": {"uri": "./nowhere", **model}},
        }
    )


def member(state: State, stage: str = "", failure: Failure | None = None) -> Member:
    replica = Replica("m", 0, "r", state, since=0.0)
    files = Files(Path("log"), Path("termination"))
    made = Member(replica, Workload("m", 1, Process(("x",))), Addresses(), files)
    made.stage, made.last_failure = stage, failure
    return made


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            Failure("it does not exist: check --model-path", ExitCode.MODEL_NOT_FOUND),
            'spec.model.uri = "./nowhere": it does not exist: check spec.model.uri',
        ),
        (
            Failure("--max-model-len 9 does not fit: lower it", ExitCode.CONTEXT_TOO_LONG),
            "spec.model.maxModelLen = 9: spec.model.maxModelLen 9 does not fit: lower it",
        ),
        (
            Failure("leave --quantization out", ExitCode.UNSUPPORTED_QUANTIZATION),
            "leave spec.model.quantization.method out",
        ),
        (
            Failure("serve by --engine-arg enforce_eager=true", ExitCode.MISSING_COMPILER),
            "serve by spec.engine.args.enforce_eager: true",
        ),
        (Failure("killed by SIGKILL", -9), "killed by SIGKILL"),
        (Failure("engine_args.x: unknown", ExitCode.BAD_SETTINGS), "spec.engine.args.x: unknown"),
    ],
)
def test_a_failure_names_the_field_and_its_value(failure: Failure, message: str) -> None:
    assert explained(failure, resource(maxModelLen=9)).message == message


def test_failures_of_the_gateway_have_no_resource() -> None:
    assert explained(Failure("--model-path"), None) == Failure("--model-path")


@pytest.mark.parametrize(
    ("members", "phase"),
    [
        ([], "Pending"),
        ([member(State.STARTING)], "Starting"),
        ([member(State.STARTING, "load 2.0 GB")], "Starting (load 2.0 GB)"),
        ([member(State.EXITED)], "Restarting"),
        ([member(State.FAILED)], "Failed"),
        ([member(State.FAILED), member(State.READY)], "Ready"),
    ],
)
def test_the_phase_is_that_of_the_best_replica(members: list[Member], phase: str) -> None:
    assert status_of(resource(), members)["phase"] == phase


def test_a_resource_without_desired_replicas_is_idle() -> None:
    idle = resource()
    idle = idle.model_copy(update={"spec": idle.spec.model_copy(update={"replicas": 0})})
    assert status_of(idle, [])["phase"] == "Idle (0 replicas)"


def test_clients_are_given_the_reason_why_no_replica_is_ready() -> None:
    failure = Failure("spec.model.uri: it does not exist", 66, "ModelNotFound")
    status = status_of(resource(), [member(State.FAILED, failure=failure)])

    _, [seen] = endpoints_of_file(endpoints.listing([], [resource()], {"m": status}))

    assert seen.state == (
        "AutoGLMDeployment default/m: Failed: ModelNotFound: spec.model.uri: it does not exist"
    )
