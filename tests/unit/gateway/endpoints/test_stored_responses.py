"""A stored response is its tenant's alone, and is found on its pod by every gateway."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace as changed

from autoglm.common.errors import NoReadyEndpoint, ResponseNotFound
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.stored_responses import ResponseIds, follow
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.routing.decide import pick

IDS = ResponseIds(b"k" * 32)
ALICE, MALLORY = Principal("acme", "alice"), Principal("evil", "mallory")


def pool_of(make: Any, *numbers: int) -> Pool:
    pool = Pool(Random(0))
    pool.change_endpoints((), [make.endpoint(n) for n in numbers], 0)
    for number in numbers:
        for event in make.up():
            pool.apply(make.endpoint(number).url, event, 0)
    return pool


def about(make: Any, name: str, who: Principal = ALICE, model: str = "") -> Any:
    request = make.request(model, wire="grpc", principal=who)
    return changed(request, info=changed(request.info, stored=name))


def test_a_response_is_found_on_its_pod_by_any_gateway_with_the_key(make: Any) -> None:
    snapshot = pool_of(make, 1, 2).snapshot
    for number in (1, 2):
        name = IDS.new("acme", make.endpoint(number).url)
        found = follow(about(make, name), snapshot, ResponseIds(b"k" * 32))
        assert (found.only, found.model) == (make.endpoint(number).url, "glm")
        assert pick(found, snapshot, 0, Random(0), "LeastLoaded").endpoint.url == found.only


def test_another_tenants_id_is_as_one_that_never_was(make: Any) -> None:
    snapshot = pool_of(make, 1).snapshot
    theirs = IDS.new("acme", make.endpoint().url)
    own = IDS.new("evil", make.endpoint().url)
    forged = own[:-1] + ("1" if own.endswith("0") else "0")
    said = []
    for name in (theirs, forged, "resp_" + "0" * 76, "x"):
        with pytest.raises(ResponseNotFound) as caught:
            follow(about(make, name, MALLORY), snapshot, IDS)
        said.append(caught.value.message.replace(name, "ID"))
    assert len(set(said)) == 1


def test_an_id_of_another_key_is_unknown(make: Any) -> None:
    name = ResponseIds(b"other" * 8).new("acme", make.endpoint().url)
    with pytest.raises(ResponseNotFound):
        follow(about(make, name), pool_of(make, 1).snapshot, IDS)


def test_an_id_whose_pod_is_gone_says_so_to_its_tenant_only(make: Any) -> None:
    name, snapshot = IDS.new("acme", make.endpoint(9).url), pool_of(make, 1).snapshot
    with pytest.raises(ResponseNotFound, match="is lost: the pod that stored it"):
        follow(about(make, name), snapshot, IDS)
    with pytest.raises(ResponseNotFound, match="is not found"):
        follow(about(make, name, MALLORY), snapshot, IDS)


def test_a_request_that_continues_a_response_keeps_its_model(make: Any) -> None:
    name, snapshot = IDS.new("acme", make.endpoint().url), pool_of(make, 1).snapshot
    found = follow(about(make, name, model="glm"), snapshot, IDS)
    assert (found.model, found.only) == ("glm", make.endpoint().url)
    with pytest.raises(ResponseNotFound) as caught:
        follow(about(make, name, MALLORY, "glm"), snapshot, IDS)
    assert caught.value.field == "previous_response_id"


def test_a_pod_that_is_not_ready_is_not_replaced_by_another(make: Any) -> None:
    snapshot = pool_of(make, 1).snapshot
    lost = changed(about(make, "", model="glm"), only=make.endpoint(2).url)
    with pytest.raises(NoReadyEndpoint, match="stored the response"):
        pick(lost, snapshot, 0, Random(0), "LeastLoaded")


def test_who_may_use_none_of_the_pods_models_finds_nothing(make: Any) -> None:
    name = IDS.new("acme", make.endpoint().url)
    limited = replace(ALICE, models=("other",))
    with pytest.raises(ResponseNotFound, match="is not found"):
        follow(about(make, name, limited), pool_of(make, 1).snapshot, IDS)


def test_ids_are_never_the_same_and_name_no_address(make: Any) -> None:
    names = {IDS.new("acme", make.endpoint().url) for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("resp_") and "10.0" not in name for name in names)
