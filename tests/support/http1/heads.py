"""Rows about request lines, targets and header fields."""

from __future__ import annotations

from tests.support.http1.row import LENIENT, Row, get, is_whole, old, post, sent

MESSAGES = (
    Row("9112 2.2", "an empty line before the request line is ignored", b"\r\n" + get(), "200"),
    Row(
        *("9112 2.2", "a bare LF ends a line", get().replace(b"\r\n", b"\n"), "400 close", "200"),
        f"a recipient may take it; llhttp does not. {LENIENT}",
    ),
    Row(
        *("9112 2.2", "a bare CR in a value", get("X: a\rb"), "400 close"),
        note="invalid, or a space",
        envoys="Envoy drops it",
    ),
    Row("9112 2.2", "white space before the first header", get().replace(b"H", b" H"), "400 close"),
    Row(
        *(
            "9110 2.5",
            "HTTP/1.9, a higher minor version",
            old("Host: x", version="1.9"),
            "400 close",
            "426 close",
            "should be served as 1.1; both parsers know 1.0 and 1.1",
        ),
    ),
    Row(
        *(
            "9110 15.6.6",
            "HTTP/2.0 in a request line",
            old("Host: x", version="2.0"),
            "505 close",
            "426 close",
            "Envoy has one status for all versions that it does not serve",
        ),
    ),
    Row("9112 2.3", "http/1.1 in lower case", get().replace(b"HTTP", b"http"), "400 close"),
    Row(
        *("9112 3", "two spaces in the request line", get().replace(b"GET ", b"GET  "), "200"),
        note="a recipient may split at any white space",
    ),
    Row("9112 3", "a space in the target", get(target="/hea lth"), "400 close"),
    Row(
        *("9110 9.1", "an unknown method", get(method="BREW"), "400 close"),
        note="501 is recommended; to llhttp and Envoy it is no HTTP",
    ),
    Row("9110 9.1", "a method in lower case", get(method="get"), "400 close"),
    Row(
        *(
            "9110 15.5.15",
            "a target of 70,000 bytes",
            get(target="/" + 70_000 * "a"),
            "431 close",
            "",
            "414 is recommended; the bound is on the whole head",
        ),
    ),
    Row("6585 5", "a head of 70,000 bytes", get("X: " + 70_000 * "s"), "431 close"),
    Row(
        *("6585 5", "150 headers", get(*(f"X-{n}: y" for n in range(150))), "200", "431 close"),
        "Envoy takes 100",
    ),
)
TARGETS = (
    Row("9112 3.2.1", "origin form with a query", get(target="/health?x=1"), "200"),
    Row("9112 3.2.2", "absolute form", get(target="http://x/health"), "200"),
    Row(
        "9112 3.2.2",
        "absolute form, with another host than Host",
        get(target="http://y/health"),
        "200",
    ),
    Row(
        *(
            "9110 4.2.2",
            "absolute form of https on a plain port",
            get(target="https://x/health"),
            "200",
            "403 close",
            "Envoy compares the scheme with the connection",
        ),
    ),
    Row(
        *(
            "9112 3.2.3",
            "authority form: CONNECT",
            get(target="x:1", method="CONNECT"),
            "405 close",
        ),
    ),
    Row(
        *("9112 3.2.4", "asterisk form: OPTIONS *", get(target="*", method="OPTIONS"), "404"),
        note="no resource has options of its own but those of CORS",
    ),
    Row(
        *("9112 3.2.4", "asterisk form of another method", get(target="*"), "404", "400 close"),
        "Envoy rejects the target",
    ),
    Row("9112 3.2", "a target without a slash", get(target="health"), "400 close"),
    Row(
        *("9112 3.2", "a fragment in the target", get(target="/health#x"), "200", "400 close"),
        "invalid; llhttp splits it off",
    ),
    Row("9112 3.2", "no Host", get(host=False), "400 close"),
    Row(
        *("9112 3.2", "two Hosts", get("Host: y"), "400 close"),
    ),
    Row("9112 3.2", "a space in Host", get("Host: a b", host=False), "400 close"),
    Row("9112 3.2", "a path in Host", get("Host: a/b", host=False), "400 close"),
    Row(
        *("9110 4.2.4", "a user name in Host", get("Host: u@b", host=False), "400 close"),
        envoys="Envoy takes it",
    ),
    Row("9112 3.2", "an empty Host", get("Host:", host=False), "200"),
    Row(
        "9112 3.2",
        "a Host with an address of IPv6 and a port",
        get("Host: [::1]:80", host=False),
        "200",
    ),
    Row(
        *(
            "9110 4.2.3",
            "an encoded letter in the path",
            post(target="/v1/%63hat/completions"),
            "200",
        ),
        also=is_whole,
    ),
)
FIELDS = (
    Row("9112 5.1", "white space before the colon", get("X : y"), "400 close"),
    Row("9110 5.1", "an empty name", get(": y"), "400 close"),
    Row("9110 5.1", "a name that is no token", get("X(y): z"), "400 close"),
    Row("9112 5", "a line without a colon", get("Xyz"), "400 close"),
    Row(
        *("9112 5.2", "obs-fold", get("X: a\r\n b"), "400 close", "200"),
        "invalid, or spaces; Envoy makes it these",
    ),
    Row("9110 5.5", "NUL in a value", get("X: a\0b"), "400 close"),
    Row("9110 5.5", "a control character in a value", get("X: a\x01b"), "400 close"),
    Row("9110 5.5", "bytes beyond ASCII, a tab and an empty value", get("X: \xe9\tb", "Y:"), "200"),
    Row(
        *(
            "9110 5.3",
            "a field that is repeated reaches the pod",
            post("X-A: one", "x-a: two"),
            "200",
        ),
        also=lambda r: ", ".join(sent(r)["x-a"]) == "one, two",
    ),
    Row(
        *("9110 5.3", "Set-Cookie of a pod stays two lines", post(text="cookies"), "200"),
        also=lambda r: r.all("set-cookie") == ["a=1", "b=2"],
    ),
)
