"""The cache: newest wins, our own writes are seen at once, lists remove what is gone."""

import json
from typing import Any

from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.kinds import CHILDREN, RESOURCE, Key
from autoglm.kube.store import Cache, own_key

SERVICE = CHILDREN[1]
OWNER = Key("ns", "glm")


def obj(version: int, name: str = "web", uid: str = "", **more: Any) -> bytes:
    labels = {DEPLOYMENT: "glm"}
    metadata = {"name": name, "namespace": "ns", "uid": uid or name, "labels": labels}
    return json.dumps({"metadata": metadata | {"resourceVersion": str(version)}} | more).encode()


def names(cache: Cache) -> list[str]:
    return [o["metadata"]["name"] for o in cache.of(OWNER)]


def test_an_object_is_read_with_its_kind_and_is_the_readers_own() -> None:
    cache = Cache(SERVICE)
    assert cache.put(obj(1, spec={"a": 1})) == OWNER
    (read,) = cache.of(OWNER)
    assert (read["apiVersion"], read["kind"], read["spec"]) == ("v1", "Service", {"a": 1})
    read["spec"]["a"] = 2
    assert cache.of(OWNER)[0]["spec"] == {"a": 1}


def test_older_and_equal_versions_are_no_news() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(5, spec=5))
    assert (cache.put(obj(5)), cache.put(obj(4))) == (None, None)
    assert cache.of(OWNER)[0]["spec"] == 5


def test_versions_compare_as_numbers() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(9))
    assert cache.put(obj(10)) == OWNER


def test_what_we_deleted_does_not_come_back_with_old_events() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(5))
    cache.forget(Key("ns", "web"), "web")
    assert cache.put(obj(6)) is None
    assert names(cache) == []
    assert cache.remove(obj(7)) is None
    assert cache.put(obj(8, uid="another")) == OWNER


def test_the_end_of_a_namesake_does_not_end_the_one_that_followed() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(9, uid="new"))
    assert cache.remove(obj(8, uid="old")) is None
    assert names(cache) == ["web"]


def test_a_list_returns_the_owners_of_new_changed_and_deleted_objects() -> None:
    cache = Cache(RESOURCE, own_key)
    for name in ("same", "changed", "gone"):
        cache.put(obj(1, name))
    news = cache.replace([obj(1, "same"), obj(2, "changed"), obj(3, "new")], 3)
    assert news == {Key("ns", name) for name in ("changed", "gone", "new")}
    assert cache.owners() == {Key("ns", name) for name in ("same", "changed", "new")}


def test_a_list_does_not_remove_what_was_written_after_it_was_made() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(7))
    assert cache.replace([], 6) == set()
    assert cache.replace([], 7) == {OWNER}


def test_a_list_of_one_namespace_leaves_the_others_alone() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(1))
    assert cache.replace([], 9, "elsewhere") == set()
    assert names(cache) == ["web"]


def test_objects_without_an_owner_are_not_kept() -> None:
    cache = Cache(SERVICE)
    metadata = {"name": "x", "namespace": "ns", "uid": "x", "resourceVersion": "1"}
    assert cache.put(json.dumps({"metadata": metadata}).encode()) is None
    assert len(cache) == 0


def test_an_object_may_change_hands() -> None:
    cache = Cache(SERVICE)
    cache.put(obj(1))
    body = json.loads(obj(2))
    body["metadata"]["labels"][DEPLOYMENT] = "other"
    cache.put(json.dumps(body).encode())
    assert (cache.of(OWNER), len(cache.of(Key("ns", "other")))) == ([], 1)
