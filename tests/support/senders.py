"""Requests to a model that echoes, which `traffic` sends again and again."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import grpc
from tests.support.processes import Process
from tests.support.traffic import Send, Traffic

from autoglm import v1
from autoglm.v1.inference_pb2_grpc import InferenceStub

TEXT = "Hello, how are you?"


def send_grpc(channel: grpc.Channel, **options: Any) -> Send:
    def send() -> None:
        response = InferenceStub(channel).Generate(
            v1.GenerateRequest(model="echo", text=TEXT), timeout=10, **options
        )
        assert response.completions[0].text == TEXT

    return send


def send_rest(gateway: Process) -> Send:
    body = json.dumps({"model": "echo", "prompt": TEXT}).encode()

    def send() -> None:
        url = f"http://{gateway.http_address}/v1/completions"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response)["choices"][0]["text"] == TEXT

    return send


def kill_and_restart(pod: Process, result: Traffic) -> None:
    """kill -9 of one pod under traffic, and its return."""
    result.wait_served(50)
    pod.kill()
    result.wait_served(200)
    pod.start().wait_ready()
    result.wait_served(50)
