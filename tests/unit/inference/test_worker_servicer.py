import pytest

from autoglm import v1
from autoglm.inference.worker_servicer import is_news

LAST = v1.WatchLoadResponse(running=3, waiting=1, kv_cache_usage=0.5, adapters=["a"])


def changed(**fields: object) -> v1.WatchLoadResponse:
    load = v1.WatchLoadResponse()
    load.CopyFrom(LAST)
    load.MergeFrom(v1.WatchLoadResponse(**fields))  # type: ignore[arg-type]  # a table of fields
    return load


@pytest.mark.parametrize(
    "fields",
    [
        {"running": 4},
        {"waiting": 2},
        {"draining": True},
        {"kv_cache_usage": 0.6},
        {"adapters": ["b"]},
    ],
)
def test_changes_that_matter_are_news(fields: dict[str, object]) -> None:
    assert is_news(changed(**fields), LAST, 0)


@pytest.mark.parametrize("fields", [{}, {"kv_cache_usage": 0.52}, {"tokens_in_flight": 9}])
def test_small_changes_wait_for_the_second(fields: dict[str, object]) -> None:
    assert not is_news(changed(**fields), LAST, 0.9)
    assert is_news(changed(**fields), LAST, 1.0)


def test_the_first_load_is_news() -> None:
    assert is_news(LAST, None, 0)
