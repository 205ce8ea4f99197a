"""What every ring of tests shares."""

import asyncio
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support.soak import IS_SOAK, TEST_SECONDS, examples

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=examples(settings().max_examples),
)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_SOAK:
        for item in items:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS), append=False)


def pytest_collection_finish() -> None:
    """What is imported by now stays: full collections need not traverse it, nor be frequent."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 50, 50)


@pytest.fixture(scope="session", autouse=True)
def main_thread_loop() -> Iterator[None]:
    """Python 3.11 makes an event loop on request; pytest-asyncio gets one and never closes it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@dataclass(frozen=True)
class CredentialForm:
    """A row of the table of credentials in docs/security.md, with names in place of secrets."""

    text: str
    presented: tuple[tuple[str, str], ...]
    is_served: bool
    remembered: tuple[str, ...]


def _credential_forms() -> list[CredentialForm]:
    document = Path(__file__).parents[1] / "docs" / "security.md"
    section = document.read_text().partition("## Forms of credentials")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (served|401) \| (.*?) ?\|$", section, re.MULTILINE)
    assert len(rows) > 40, "the table in docs/security.md is not where it was"
    return [_credential_form(*row) for row in rows]


def _credential_form(text: str, decision: str, remembered: str) -> CredentialForm:
    lines = re.findall(r"`([^`]+)`", text)
    pairs = (line.partition(":")[::2] for line in lines)
    presented = tuple(
        (name.lower(), value.removeprefix(" ").replace("\\t", "\t").replace("␠", " "))
        for name, value in pairs
    )
    kept = re.findall(r"(?:good|bad): (?:[A-Z]+|the value)", remembered)
    return CredentialForm(text, presented, decision == "served", tuple(kept))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `credential_form` runs once for each row of the table."""
    if "credential_form" in metafunc.fixturenames:
        forms = _credential_forms()
        metafunc.parametrize("credential_form", forms, ids=[form.text for form in forms])


@pytest.fixture(scope="session")
def credential_forms() -> list[CredentialForm]:
    return _credential_forms()
