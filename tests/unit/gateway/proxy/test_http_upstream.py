"""What the HTTP upstream makes of a server's headers and of connections that fail."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from autoglm.common import errors
from autoglm.gateway.proxy import http_upstream
from autoglm.gateway.proxy.http_upstream import retry_after_seconds
from autoglm.gateway.proxy.upstream import RetryElsewhere
from autoglm.http1.pool import ConnectFailed

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


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_lack_of_files_here_says_nothing_against_the_endpoint(number: int) -> None:
    error = ConnectFailed(os.strerror(number), number)
    found = http_upstream._before_first_byte(error, SimpleNamespace(url="http://x"))  # type: ignore[arg-type]
    assert isinstance(found, RetryElsewhere)
    assert (found.gone, type(found.error)) == (False, errors.QueueFull)
