"""Labels as paths of tokens."""

import math

import pytest

from autoglm.inference.vllm.text.label_tree import END, branches, log_sum, score

OUT, AGE, FINE = 1, 2, 3


def test_each_inner_node_is_scored_once() -> None:
    paths = [(OUT, END), (OUT, AGE, END), (FINE, END), (OUT, END)]

    assert branches(paths) == {
        (): [OUT, FINE],
        (OUT,): [END, AGE],
        (OUT, AGE): [END],
        (FINE,): [END],
    }


def test_a_score_is_the_sum_along_the_path() -> None:
    read = {(): {OUT: -1.0}, (OUT,): {END: -4.0, AGE: -0.5}, (OUT, AGE): {END: -0.25}}

    assert score((OUT, END), read) == -5.0
    assert score((OUT, AGE, END), read) == -1.75


def test_probabilities_add_up() -> None:
    assert log_sum([math.log(0.2), math.log(0.3)]) == pytest.approx(math.log(0.5))
    assert log_sum([-math.inf, -math.inf]) == -math.inf
