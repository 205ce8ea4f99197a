"""What is nested too deeply is cut off, and everything else stays as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api import shallow as module
from autoglm.api.shallow import DEEPEST, decoded, shallow

HOSTILE = 9_900


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * levels + "1" + closing * levels


def levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)


def test_an_ordinary_object_is_the_same() -> None:
    text = json.dumps({"metadata": {"name": "x"}, "items": list(range(500))}).encode()

    assert shallow(text) is text


def test_as_deep_as_may_be_is_the_same() -> None:
    text = nested(DEEPEST).encode()

    assert shallow(text) == text


@pytest.mark.parametrize("way", [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")])
def test_deeper_levels_become_null(way: tuple[str, str]) -> None:
    text = f'{{"before":1,"deep":{nested(HOSTILE, *way)},"after":[2]}}'.encode()

    found = json.loads(shallow(text))

    assert levels(found) == DEEPEST
    assert (found["before"], found["after"]) == (1, [2])


def test_brackets_in_texts_are_text() -> None:
    body = {"text": '{[}]\\"{' * DEEPEST, "end": "\\"}

    assert json.loads(shallow(json.dumps(body).encode())) == body


_VALUES = st.recursive(
    st.none() | st.text(alphabet='{}[]"\\,:a\n', max_size=8) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet='{}[]"\\a', max_size=4), inner, max_size=3)
    ),
)


@given(value=_VALUES, deepest=st.integers(0, 4))
def test_what_is_cut_is_what_is_too_deep(value: Any, deepest: int) -> None:
    def without(value: Any, room: int) -> Any:
        if not isinstance(value, dict | list):
            return value
        if not room:
            return None
        if isinstance(value, dict):
            return {key: without(v, room - 1) for key, v in value.items()}
        return [without(v, room - 1) for v in value]

    assert json.loads(module._cut(json.dumps(value).encode(), deepest)) == without(value, deepest)


class Page(msgspec.Struct):
    items: list[msgspec.Raw]


def test_a_list_is_read_though_one_of_its_objects_is_too_deep() -> None:
    good = '{"metadata":{"name":"good"}}'
    text = f'{{"items":[{good},{{"spec":{nested(HOSTILE)}}},{good}]}}'.encode()

    page = decoded(msgspec.json.Decoder(Page), text)

    objects = [json.loads(shallow(bytes(item))) for item in page.items]
    assert (objects[0], objects[2]) == (json.loads(good), json.loads(good))
    assert levels(objects[1]) == DEEPEST
