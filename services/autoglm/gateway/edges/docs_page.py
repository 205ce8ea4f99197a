"""The page at `/docs`: the API's operations as a table, from `openapi.json`. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from string import Template
from typing import Any

HEADERS: dict[str, str] = {
    "content-type": "text/html; charset=utf-8",
    # The page has no scripts and loads nothing.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
}
_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td { padding: .2rem 1rem .2rem 0; vertical-align: top }
code, pre { font-family: ui-monospace, monospace } pre { overflow-x: auto }
</style>
<h1>$title</h1>
<p>$description</p>
<p>The whole description, for generators of clients: <a href="/openapi.json">/openapi.json</a>.
The models that are ready: <a href="/v1/models">/v1/models</a>. In this request
GATEWAY is the address of this page, such as http://127.0.0.1:8080:</p>
<pre>
curl GATEWAY/v1/chat/completions \\
  -H "authorization: Bearer $$AUTOGLM_API_KEY" -H "content-type: application/json" \\
  -d '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello"}]}'
</pre>
<table>
$rows
</table>
</html>
""")


def docs_page(openapi: bytes) -> bytes:
    """Return the page of an OpenAPI document, both in UTF-8."""
    document: dict[str, Any] = json.loads(openapi)
    page = _PAGE.substitute(
        title=escape(document["info"]["title"]),
        description=escape(document["info"]["description"]),
        rows="\n".join(_rows(document["paths"])),
    )
    return page.encode()


def _rows(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            name = f"<code>{method.upper()} {escape(path)}</code>"
            yield f"<tr><td>{name}</td><td>{escape(operation['summary'])}</td></tr>"
