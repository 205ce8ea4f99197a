"""Rows about connections, methods and responses."""

from __future__ import annotations

from tests.support.http1.row import (
    CHAT,
    MODELS,
    NO_OLD,
    Row,
    get,
    is_whole,
    old,
    post,
    received,
    sent,
)

CONNECTIONS = (
    Row("9112 9.3", "a connection is kept", get(), "200"),
    Row(
        "9112 9.3.2",
        "pipelined requests have their responses in order",
        get() + post() + get(),
        "200 200 200",
    ),
    Row(
        *(
            "9112 9.3.2",
            "what is not HTTP, behind a request",
            get() + b"bad\r\n\r\n",
            "200 close",
            "200 400 close",
            "the first one is served",
        ),
    ),
    Row(
        *("9112 9.6", "Connection: close", get("Connection: close"), "200 close"),
        also=lambda r: r.one("connection") == "close",
    ),
    Row("9112 9.6", "Close among options, in other case", get("Connection: x, Close"), "200 close"),
    Row(
        "9112 9.6", "close wins over keep-alive", get("Connection: close, keep-alive"), "200 close"
    ),
    Row("9112 9.3", "HTTP/1.0 without Host", old(), "200 close", "426 close", NO_OLD),
    Row(
        *(
            "9112 9.3",
            "HTTP/1.0 with keep-alive",
            old("Connection: keep-alive"),
            "200",
            "426 close",
        ),
        *(NO_OLD, lambda r: r.status == 426 or r.one("connection") == "keep-alive"),
    ),
    Row(
        *(
            "9110 7.6.1",
            "a field that Connection names does not reach the pod",
            post("Connection: X-S", "X-S: 1", "X-E: 1"),
            "200",
        ),
        also=lambda r: "x-e" in sent(r) and not {"x-s", "connection"} & set(sent(r)),
    ),
    Row(
        *(
            "9110 7.6.1",
            "Keep-Alive and Proxy-Connection do not reach the pod",
            post("Keep-Alive: 5", "Proxy-Connection: x"),
            "200",
        ),
        also=lambda r: not {"keep-alive", "proxy-connection"} & set(sent(r)),
    ),
    Row(
        *(
            "9110 7.6.1",
            "a field that a pod's Connection names does not reach the client",
            post(text="hop"),
            "200",
        ),
        also=lambda r: (
            "x-e" in dict(r.headers) and not {"x-hop", "keep-alive"} & set(dict(r.headers))
        ),
        envoys="Envoy removes Connection and Keep-Alive, not what Connection names",
    ),
    Row(
        *("9110 7.8", "an Upgrade to h2c is ignored"),
        *(
            post("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
            "200",
        ),
        also=lambda r: is_whole(r) and not {"upgrade", "http2-settings"} & set(sent(r)),
    ),
    Row(
        *(
            "9110 7.8",
            "an Upgrade to websocket",
            get("Connection: Upgrade", "Upgrade: websocket"),
            "200",
            "403 close",
        ),
        "may be ignored; Envoy rejects what is not configured",
    ),
    Row(
        "9110 7.6.3",
        "Via of the client reaches the pod",
        post("Via: 1.1 a"),
        "200",
        also=lambda r: sent(r)["via"][0] == "1.1 a",
    ),
    Row(
        *("9110 7.6.3", "a gateway adds itself to Via", post(), "200"),
        also=lambda r: "via" in sent(r),
        ours="no Via is added: to a pod the gateway is the client",
        envoys="as with the embedded plane",
    ),
)
METHODS = (
    Row(
        "9110 9.3.2",
        "HEAD has no body",
        get(target=MODELS, method="HEAD"),
        "200",
        also=lambda r: int(r.one("content-length")) > 0,
    ),
    Row(
        *(
            "9110 15.5.6",
            "a method that a path does not have",
            get(target=MODELS, method="PUT"),
            "405",
        ),
        also=lambda r: r.one("allow") == "GET, HEAD",
    ),
    Row(
        "9110 9.3.8",
        "TRACE reflects nothing",
        get("X: secret", method="TRACE"),
        "405",
        also=lambda r: b"secret" not in r.body,
    ),
    Row(
        *("9110 9.3.7", "OPTIONS of a path", get(target=CHAT, method="OPTIONS"), "405"),
        also=lambda r: r.one("allow") == "POST",
        note="of CORS with --allowed-origins, see [REST](apis.md)",
    ),
    Row(
        "9110 10.1.1",
        "Expect: 100-continue, its body not yet sent",
        post("Expect: 100-continue"),
        "200",
        "100 200",
    ),
    Row(
        *(
            "9110 10.1.1",
            "Expect in HTTP/1.0 is ignored",
            post("Expect: 100-continue", version="1.0"),
        ),
        *("200 close", "426 close", NO_OLD),
    ),
    Row("9110 10.1.1", "another expectation", post("Expect: magic"), "417 close", "417"),
    Row(
        "9110 14.2",
        "Range of what has no ranges is ignored",
        get("Range: bytes=0-1", target=MODELS),
        "200",
    ),
    Row("9110 15.5.5", "an unknown path", get(target="/nothing"), "404"),
)
RESPONSES = (
    Row(
        "9110 6.6.1",
        "Date is in each response",
        get(),
        "200",
        also=lambda r: r.one("date").endswith("GMT"),
    ),
    Row(
        "9112 7.1",
        "a body without a length is chunked",
        post(text="chunked"),
        "200",
        also=lambda r: r.body == b'{"a":1}',
    ),
    Row(
        *(
            "9112 6.3",
            "and ends with the connection in HTTP/1.0",
            post(text="chunked", version="1.0"),
        ),
        *("200 close", "426 close", NO_OLD),
        lambda r: r.status == 426 or (r.body == b'{"a":1}' and not r.all("transfer-encoding")),
    ),
    Row(
        "9110 8.6",
        "204 has no Content-Length",
        post(text="204"),
        "204",
        also=lambda r: not r.all("content-length"),
    ),
    Row(
        "9110 15.2",
        "103 of a pod is not its response",
        post(text="early"),
        "200",
        also=lambda r: "early" in str(received(r)),
    ),
)
