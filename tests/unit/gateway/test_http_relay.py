"""What the HTTP relay reads of a server's headers."""

from __future__ import annotations

import pytest

from autoglm.gateway.http_relay import retry_after_seconds

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("40", 40.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:14:00 GMT", 40.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 400, None),
        ("١٢", None),
        ("Tue, 99 Nov 2023 22:14:00 GMT", None),
    ],
)
def test_retry_after_has_two_forms_and_others_say_nothing(
    value: str, seconds: float | None
) -> None:
    assert retry_after_seconds(value, NOW) == seconds
