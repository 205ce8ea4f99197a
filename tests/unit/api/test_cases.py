"""Cases that schema, rules and CEL judge alike; the control-plane tests send them to a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.resources import BAD, CASES, GOOD, Case
from tests.support.soak import examples

from autoglm.api import InvalidSpec, parse
from autoglm.api.parse import problem_of


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_good_spec_is_taken(case: Case) -> None:
    assert parse(case.document()).name == "case"


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_spec_is_refused_with_its_reason(case: Case) -> None:
    with pytest.raises(InvalidSpec) as raised:
        parse(case.document())

    assert case.problem is not None and case.problem in str(raised.value)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 60


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_WORDS = """spec model engine scaling args env cache type metrics target minReplicas maxReplicas
    name aliases adapters replicas value valueFrom uri actuator template resources limits"""
_KEYS = st.sampled_from(_WORDS.split()) | st.text(max_size=8)
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6)
)


@settings(max_examples=examples(60), deadline=None)
@given(spec=st.dictionaries(_KEYS, _ANYTHING, max_size=8), metadata=_ANYTHING)
def test_a_hostile_document_is_refused_and_never_crashes(
    spec: dict[str, Any], metadata: Any
) -> None:
    document = {**CASES[0].document(), "spec": spec, "metadata": metadata}
    try:
        resource = parse(document)
    except InvalidSpec as error:
        assert error.problems and all(str(problem) for problem in error.problems)
    else:
        assert resource.spec.model


@settings(max_examples=examples(60), deadline=None)
@given(case=st.sampled_from(CASES), data=st.data())
def test_one_wrong_value_anywhere_never_crashes(case: Case, data: st.DataObject) -> None:
    document = case.document()
    place: Any = document["spec"]
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()) or not isinstance(place[key], dict):
            place[key] = data.draw(_ANYTHING)
            break
        place = place[key]
    try:
        parse(document)
    except InvalidSpec as error:
        assert error.problems


def test_a_problem_speaks_of_the_document_it_is_about() -> None:
    detail: Any = {"type": "missing", "loc": ("metadata", "name"), "input": {}, "msg": ""}

    assert str(problem_of(detail)).startswith("metadata.name: is required (Name of the resource")
