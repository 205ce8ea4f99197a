"""Stored responses over both data planes and several gateways: read, cancelled and continued."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from tests.support.rest_stack import fake_server

from autoglm.common.rpc import RESPONSE_ID
from autoglm.gateway.app import Gateway
from autoglm.gateway.identity.keys import new_key
from autoglm.testing.fake_pod import FakePod

PATH = "/v1/responses"


class Store:
    """What a pod does of the Responses API, by the ids that it is given."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    async def respond(self, request: web.Request) -> web.Response:
        parts = request.path.split("/")[3:]
        if not parts:
            body = await request.json()
            previous = body.get("previous_response_id")
            if previous is not None and previous not in self.stored:
                return self._missing()
            name = request.headers[RESPONSE_ID]
            self.stored[name] = "completed"
            return web.json_response({"id": name, "status": "completed"})
        if parts[0] not in self.stored:
            return self._missing()
        if parts[1:] == ["cancel"]:
            self.stored[parts[0]] = "cancelled"
        return web.json_response({"id": parts[0], "status": self.stored[parts[0]]})

    @staticmethod
    def _missing() -> web.Response:
        error = {"message": "the pod does not know it", "code": 404}
        return web.json_response({"error": error}, status=404)


class Caller:
    def __init__(self, session: aiohttp.ClientSession, gateways: list[Gateway], key: str) -> None:
        self._session = session
        self._ports = [gateway.http_port for gateway in gateways]
        self._headers = {"authorization": f"Bearer {key}"}

    async def __call__(
        self, gateway: int, method: str, path: str, body: Any = None
    ) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self._ports[gateway]}{path}"
        # A client cannot choose the id.
        headers = self._headers | {RESPONSE_ID: "resp_" + "0" * 76}
        async with self._session.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()


async def test_a_response_is_its_tenants_on_every_gateway(fleet: Any, tmp_path: Path) -> None:
    made = {tenant: new_key(tenant) for tenant in ("acme", "evil")}
    keys, secret = tmp_path / "keys.json", tmp_path / "key"
    keys.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in made.values()]}))
    secret.write_text("s" * 40)
    async with AsyncExitStack() as stack:
        stores = [Store(), Store()]
        urls = [await stack.enter_async_context(fake_server(store.respond)) for store in stores]
        ports = [int(url.rpartition(":")[2]) for url in urls]
        pods = await fleet.pods(*(FakePod(model="m", http_port=port) for port in ports))
        files = {"api_keys_file": str(keys), "prefix_cache_key_file": str(secret)}
        gateways = [await fleet.gateway(*pods, **files) for _ in range(2)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        alice, mallory = (Caller(session, gateways, made[t][0]) for t in ("acme", "evil"))
        asked = {"model": "m", "input": "hi"}
        names = []
        for _ in range(6):
            code, found = await alice(0, "POST", PATH, asked)
            assert code == 200
            names.append(found["id"])
        assert len(set(names)) == 6
        for name in names:
            assert await alice(1, "GET", f"{PATH}/{name}") == (
                200,
                {"id": name, "status": "completed"},
            )
            more = asked | {"previous_response_id": name}
            assert (await alice(1, "POST", PATH, more))[0] == 200
            assert (await mallory(1, "POST", PATH, more))[0] == 404
            code, theirs = await mallory(0, "GET", f"{PATH}/{name}")
            unknown = f"resp_{'0' * 76}"
            _, nobodys = await mallory(0, "GET", f"{PATH}/{unknown}")
            for error in (theirs["error"], nobodys["error"]):
                error.pop("request_id")
                error["message"] = error["message"].replace(name, "ID").replace(unknown, "ID")
            assert (code, theirs) == (404, nobodys)
            assert (await mallory(0, "POST", f"{PATH}/{name}/cancel"))[0] == 404
            assert (await alice(1, "POST", f"{PATH}/{name}/cancel/"))[1]["status"] == "cancelled"
