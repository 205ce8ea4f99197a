"""Whether the nodes fit on the disk is decided before anything is built."""

from pathlib import Path

import pytest
from tests.support.kube.disk import Place, missing, places

GB = 1000**3
BUILD, TEMPORARY = Path("/src/build/buildah"), Path("/tmp")


LAYERS, NODES, NOTHING = (20, 10), (1, 15), (0, 0)


def found(build: int, temporary: int, *, shared: bool, layers: tuple[int, int] = LAYERS) -> str:
    """Free gigabytes of the two places, and what the layers need."""
    first = Place(BUILD, 1, build * GB, (layers[0] * GB, layers[1] * GB))
    nodes = (NODES[0] * GB, NODES[1] * GB)
    return missing([first, Place(TEMPORARY, 1 if shared else 2, temporary * GB, nodes)])


@pytest.mark.parametrize(
    ("build", "temporary", "shared", "layers"),
    [
        (25, 25, True, LAYERS),
        (21, 21, True, (20, 1)),
        (20, 15, False, LAYERS),
        (15, 15, True, NOTHING),
        (0, 15, False, NOTHING),
    ],
)
def test_what_fits_is_no_reason(
    build: int, temporary: int, shared: bool, layers: tuple[int, int]
) -> None:
    assert found(build, temporary, shared=shared, layers=layers) == ""


def test_places_on_one_disk_need_room_for_both() -> None:
    assert found(24, 24, shared=True) == (
        "images and nodes need 25 GB of free disk in /src/build/buildah and /tmp, which has "
        "24.0 GB: free some, or let TMPDIR name a directory on a larger disk"
    )


def test_disk_has_to_hold_what_there_is_while_images_are_built() -> None:
    assert "need 21 GB" in found(20, 20, shared=True, layers=(20, 1))


def test_only_the_disk_that_is_too_small_is_named() -> None:
    said = found(99, 12, shared=False)

    assert said.startswith("images and nodes need 15 GB of free disk in /tmp, which has 12.0 GB")
    assert str(BUILD) not in said


def test_every_disk_that_is_too_small_is_named() -> None:
    assert found(1, 2, shared=False).count("GB of free disk in") == 2


def test_layers_of_an_earlier_run_need_no_room() -> None:
    said = found(14, 14, shared=True, layers=NOTHING)

    assert "in /tmp, which has" in said


def test_this_machine_is_checked_where_the_ring_writes() -> None:
    assert [place.path.name for place in places()][0] == "buildah"
    assert all(place.free > 0 for place in places())
