from __future__ import annotations

import json
from html.parser import HTMLParser

from autoglm.gateway.edges import rest_local
from autoglm.gateway.edges.docs_page import HEADERS, docs_page

DOCUMENT = json.loads(rest_local.openapi())


class Seen(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags, self.text = set[str](), ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_operation_is_on_the_page_with_its_summary() -> None:
    text = Seen(docs_page(rest_local.openapi())).text
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}{operation['summary']}" in text


def test_the_page_loads_nothing_and_runs_no_script() -> None:
    assert Seen(docs_page(rest_local.openapi())).tags.isdisjoint(
        {"script", "link", "img", "iframe"}
    )
    assert "default-src 'none'" in HEADERS["content-security-policy"]


def test_text_of_the_description_is_not_markup() -> None:
    document = {
        "info": {"title": "<b>t</b>", "description": "&"},
        "paths": {"/<i>": {"get": {"summary": "<u>"}}},
    }
    seen = Seen(docs_page(json.dumps(document).encode()))
    assert seen.tags.isdisjoint({"b", "i", "u"})
    assert "<b>t</b>" in seen.text and "GET /<i><u>" in seen.text
