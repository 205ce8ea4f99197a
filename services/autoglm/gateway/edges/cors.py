"""Which browsers' pages may use the REST port (CORS of the Fetch standard). Pure.

Used by the REST edge and by Envoy's configuration. Credentials are headers that a page sets itself
(authorization, x-api-key), so `Access-Control-Allow-Credentials` is never sent: cookies and client
certificates of a browser stay out, with `*` and with listed origins alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm.common.status import REQUEST_ID, USAGE_TRAILER
from autoglm.validation.http_errors import ANTHROPIC_REQUEST_ID, SHOULD_RETRY

ANY = "*"
METHODS = "GET, HEAD, POST, DELETE"
# The wildcard does not cover authorization.
HEADERS = "*, authorization, content-type, x-api-key"
EXPOSED = ", ".join(
    (
        REQUEST_ID,
        ANTHROPIC_REQUEST_ID,
        "retry-after",
        SHOULD_RETRY,
        USAGE_TRAILER,
        *(
            f"x-ratelimit-{part}-{what}"
            for what in ("requests", "tokens")
            for part in ("limit", "remaining", "reset")
        ),
    )
)
MAX_AGE_SECONDS = 600
VARY = "Origin"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def check_origin(origin: str) -> str:
    """Return the origin as browsers send it. Raises ValueError for anything else."""
    if origin == ANY or _ORIGIN.fullmatch(origin):
        return origin
    raise ValueError(
        f"origin {origin[:100]!r} is not one; give SCHEME://HOST[:PORT] in lower case and without "
        "a path, such as https://app.example, or * for all"
    )


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins whose pages may read responses; none turns CORS off."""

    origins: tuple[str, ...] = ()

    def preflight(self, headers: Mapping[str, str]) -> dict[str, str] | None:
        """Return the headers of the response to a preflight request; None for other requests."""
        allowed = self._allowed(headers.get("origin", ""))
        if not allowed or "access-control-request-method" not in headers:
            return None
        return {
            **self._vary(),
            "access-control-allow-origin": allowed,
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": HEADERS,
            "access-control-max-age": str(MAX_AGE_SECONDS),
        }

    def response_headers(self, origin: str) -> dict[str, str]:
        """Return the headers of every response to a request from the origin, which may be empty."""
        if not (allowed := self._allowed(origin)):
            return self._vary()
        return {
            **self._vary(),
            "access-control-allow-origin": allowed,
            "access-control-expose-headers": EXPOSED,
        }

    def _vary(self) -> dict[str, str]:
        return {"vary": VARY} if self.origins and ANY not in self.origins else {}

    def _allowed(self, origin: str) -> str:
        if ANY in self.origins:
            return ANY if origin else ""
        return origin if origin in self.origins else ""
