"""Which mounts go with the running root, decided from the kernel's list alone."""

from __future__ import annotations

from pyinfra_overlaymig.runner import mountinfo
from pyinfra_overlaymig.runner.carry import to_carry
from pyinfra_overlaymig.runner.mountinfo import Mount


def mount(id: int, parent: int, place: str) -> Mount:
    return Mount(id, parent, "0:1", "/", place, "rw", "tmpfs", "tmpfs")


def test_only_the_highest_places_are_bound() -> None:
    """What lies below a place goes with it, however the kernel lists them."""
    mounts = [
        mount(3, 2, "/dev/pts"),
        mount(1, 0, "/"),
        mount(2, 1, "/dev"),
        mount(4, 1, "/data"),
        mount(5, 4, "/data/x"),
    ]
    assert [one.place for one in to_carry(mounts, set())] == ["/data", "/dev"]


def test_of_several_at_one_place_the_top_one_goes() -> None:
    """One that another lies on is not seen, and would be carried over it."""
    mounts = [mount(1, 0, "/"), mount(2, 1, "/srv"), mount(3, 2, "/srv")]
    assert [one.id for one in to_carry(mounts, set())] == [3]


def test_a_place_is_not_below_one_that_only_begins_alike() -> None:
    """`/data2` is no part of `/data`."""
    mounts = [mount(1, 0, "/"), mount(2, 1, "/data"), mount(3, 1, "/data2")]
    assert [one.place for one in to_carry(mounts, set())] == ["/data", "/data2"]


def test_state_and_what_is_the_runners_own_stay() -> None:
    """State follows the generation; the view of the base hangs where it hangs."""
    mounts = [
        mount(1, 0, "/"),
        mount(2, 1, "/var/lib/db"),
        mount(3, 1, "/run"),
        mount(4, 3, "/run/system-migrate"),
        mount(5, 4, "/run/system-migrate/base"),
    ]
    assert [one.place for one in to_carry(mounts, {"/var/lib/db"})] == ["/run"]


def test_odd_names_are_read_as_they_are() -> None:
    """The kernel escapes blanks, tabs, newlines and backslashes of a place."""
    assert mountinfo.unescape(r"/srv/a\040b\011c\012d\134e") == "/srv/a b\tc\nd\\e"


def test_what_is_mounted_over_is_not_seen() -> None:
    """The copy of /data that a switch leaves below the one that was moved, with all that hangs in it."""
    mounts = [
        mount(1, 0, "/"),
        mount(2, 1, "/data"),
        mount(3, 2, "/data/state/x"),
        mount(4, 2, "/data"),
        mount(5, 4, "/data/state/y"),
        mount(6, 1, "/srv/a/b"),
        mount(7, 1, "/srv/a"),
        mount(8, 7, "/srv/a/c"),
    ]
    assert {one.id for one in mountinfo.visible(mounts).values()} == {1, 4, 5, 7, 8}
