"""What tests/data/counted_models.json records is what transformers counts."""

from __future__ import annotations

import json

import pytest
from tests.support.meta_models import COUNTED, configs, counted

CONFIGS = configs()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_record_is_what_transformers_counts(name: str) -> None:
    assert counted(CONFIGS[name]) == json.loads(COUNTED.read_text())[name]
