"""h2spec's report becomes a table by section, with what fails at ours alone."""

from __future__ import annotations

from benchmarks.h2spec import Result, results, rows

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="6.7. PING" package="http2/6.7" id="6.7" tests="3">
    <testcase package="http2/6.7" classname="Sends a PING frame" time="0.1"></testcase>
    <testcase package="http2/6.7" classname="Sends a bad one" time="1"><error>GOAWAY
\x01\x02</error></testcase>
    <testcase package="http2/6.7" classname="Sends none" time="0"><skipped>no</skipped></testcase>
  </testsuite>
</testsuites>
"""


def test_a_report_with_bytes_that_are_not_xml_is_read() -> None:
    assert list(results(REPORT)) == [
        Result("http2 6.7. PING", "Sends a PING frame", True),
        Result("http2 6.7. PING", "Sends a bad one", False),
        Result("http2 6.7. PING", "Sends none", None),
    ]


def test_sections_without_a_failure_are_left_out_and_skipped_cases_do_not_count() -> None:
    fine = [Result("http2 5. Streams", "one", True)]
    found = {"ours": [*results(REPORT), *fine], "bare": [Result("http2 6.7. PING", "x", True)]}
    assert rows(found) == [
        {"section": "http2 6.7. PING", "ours": "1/2", "bare": "1/1"},
        {"section": "all", "ours": "2/3", "bare": "1/1"},
    ]
