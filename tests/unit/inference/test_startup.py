"""Progress of a start follows from samples of what the machine shows."""

from __future__ import annotations

import pytest

from autoglm.inference.startup import Sample, Stage, Startup

MIB, GB = 2**20, 10**9


def startup(total: int = 0) -> Startup:
    return Startup(started=100.0, total_bytes=total)


def test_a_download_shows_its_bytes_and_its_rate() -> None:
    start = startup(total=16 * GB)
    for second in range(6):
        start.observe(Sample(Stage.LOAD, cached_bytes=GB + second * 50_000_000), 100.0 + second)

    assert start.stage(105.0) is Stage.DOWNLOAD
    assert start.text(105.0) == "download 1.2 of 16.0 GB at 50.0 MB/s"


def test_a_download_of_unknown_length_shows_what_has_come() -> None:
    start = startup()
    start.observe(Sample(Stage.IMPORT), 100.0)
    start.observe(Sample(Stage.IMPORT, cached_bytes=3 * GB), 101.0)

    assert start.text(101.0) == "download 3.0 GB at 0.0 MB/s"


def test_a_model_that_is_cached_is_loaded_not_downloaded() -> None:
    start = startup(total=2 * GB)
    start.observe(Sample(Stage.LOAD, cached_bytes=2 * GB), 101.0)

    assert start.text(120.0) == "load 2.0 GB"


def test_later_stages_follow_the_log() -> None:
    start = startup(total=2 * GB)
    start.observe(Sample(Stage.LOAD, cached_bytes=GB), 101.0)
    start.observe(Sample(Stage.COMPILE, cached_bytes=GB), 102.0)

    assert start.text(102.0) == "compile"


@pytest.mark.parametrize(
    "sample",
    [
        Sample(Stage.LOAD),
        Sample(Stage.IMPORT, log_bytes=1),
        Sample(Stage.IMPORT, io_bytes=MIB),
        Sample(Stage.IMPORT, cached_bytes=1),
    ],
)
def test_anything_that_moves_is_progress(sample: Sample) -> None:
    start = startup()
    start.observe(Sample(Stage.IMPORT), 100.0)
    start.observe(sample, 150.0)

    assert start.idle_seconds(160.0) == 10.0


def test_housekeeping_of_waiting_processes_is_no_progress() -> None:
    start = startup()
    for second in range(100):
        start.observe(Sample(Stage.IMPORT, io_bytes=second * 1000), 100.0 + second)

    assert start.idle_seconds(200.0) == 100.0


def test_slow_reads_add_up_to_progress() -> None:
    start = startup()
    for second in range(100):
        start.observe(Sample(Stage.LOAD, io_bytes=second * MIB // 10), 100.0 + second)

    assert start.idle_seconds(199.0) <= 10.0


def test_a_download_of_a_byte_a_minute_never_stalls() -> None:
    start = startup(total=GB)
    for minute in range(600):
        now = 100.0 + 60 * minute
        start.observe(Sample(Stage.LOAD, cached_bytes=minute), now)
        assert start.idle_seconds(now + 59) < 120

    assert start.stage(now) is Stage.DOWNLOAD
