"""Lists in pages."""

from autoglm.kube.transport import Pages


def test_pages_are_requested_with_the_token_of_the_page_before_until_there_is_none() -> None:
    pages, queries = Pages((("labelSelector", "x"),)), []
    tokens = iter(("a", "b", ""))
    for query in pages:
        queries.append(dict(query))
        pages.token = next(tokens)
    assert [query.get("continue") for query in queries] == [None, "a", "b"]
    assert all(query["labelSelector"] == "x" and query["limit"] == "500" for query in queries)
