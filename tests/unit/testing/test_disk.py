"""Whether the nodes fit on the disk is decided before anything is built."""

from pathlib import Path

import pytest

from autoglm.testing.disk import Place, missing, places

GB = 1000**3
BUILD, TEMPORARY = Path("/src/build/buildah"), Path("/tmp")


def found(build: int, temporary: int, *, shared: bool, needs: tuple[int, int] = (10, 25)) -> str:
    """Free gigabytes of the two places."""
    first = Place(BUILD, 1, build * GB, needs[0] * GB)
    return missing([first, Place(TEMPORARY, 1 if shared else 2, temporary * GB, needs[1] * GB)])


@pytest.mark.parametrize(
    ("build", "temporary", "shared", "needs"),
    [
        (35, 35, True, (10, 25)),
        (10, 25, False, (10, 25)),
        (25, 25, True, (0, 25)),
        (0, 25, False, (0, 25)),
    ],
)
def test_what_fits_is_no_reason(
    build: int, temporary: int, shared: bool, needs: tuple[int, int]
) -> None:
    assert found(build, temporary, shared=shared, needs=needs) == ""


def test_places_on_one_disk_need_room_for_both() -> None:
    assert found(34, 34, shared=True) == (
        "images and nodes need 35 GB of free disk in /src/build/buildah and /tmp, which has "
        "34.0 GB: free some, or let TMPDIR name a directory on a larger disk"
    )


def test_only_the_disk_that_is_too_small_is_named() -> None:
    said = found(99, 12, shared=False)

    assert said.startswith("images and nodes need 25 GB of free disk in /tmp, which has 12.0 GB")
    assert str(BUILD) not in said


def test_every_disk_that_is_too_small_is_named() -> None:
    assert found(1, 2, shared=False).count("GB of free disk in") == 2


def test_layers_of_an_earlier_run_need_no_room() -> None:
    said = found(24, 24, shared=True, needs=(0, 25))

    assert "in /tmp, which has" in said


def test_this_machine_is_looked_at_where_the_ring_writes() -> None:
    assert [place.path.name for place in places()][0] == "buildah"
    assert all(place.free > 0 for place in places())
