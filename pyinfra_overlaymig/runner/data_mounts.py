"""What is mounted below /data in the running root is mounted in the base view as well: a volume for one state path.

The view has a mount of /data of its own, made at boot: it would not see what is mounted there later, and the runner
would read and write what lies beneath.
"""

from __future__ import annotations

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import DATA, LIVE, STATE, VOLUMES, is_below
from pyinfra_overlaymig.runner import files, linux, mountinfo
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pyinfra_overlaymig.runner.mountinfo import Mount


def follow() -> None:
    """Mounts and unmounts what differs. What cannot be is named: a machine has to boot all the same."""
    wanted, here = (_below(mountinfo.read(pid)) for pid in (1, "self"))
    for place in sorted(here, reverse=True):
        if place not in wanted or not _alike(here[place], wanted[place]):
            linux.umount(place, linux.MNT_DETACH)
            del here[place]
    for place in sorted(wanted.keys() - here.keys()):
        try:
            linux.mount(LIVE + place, place, flags=linux.MS_BIND)
        except OSError as error:
            warn(f"what is mounted at {place} is not seen by migrations: {error.strerror}")


def _below(mounts: list[Mount]) -> dict[str, Mount]:
    return {place: one for place, one in mountinfo.visible(mounts).items() if place.startswith(f"{DATA}/")}


def _alike(one: Mount, other: Mount) -> bool:
    return (one.device, one.root) == (other.device, other.root)


def on(top: str) -> list[str]:
    """Where at ``top`` or below it something is mounted."""
    return sorted({one.place for one in mountinfo.read() if is_below(one.place, top)})


def tell_missing(paths: Collection[str]) -> None:
    """Names state paths that were file systems of their own when they were bound last, and are none now: what is seen
    there is what lies beneath. Once, as it may be somebody's will.
    """
    known = {octal.unescape_text(line) for line in files.lines(VOLUMES)}
    now = {path for path in paths if STATE + path in on(STATE + path)}
    for path in sorted(known.intersection(paths) - now):
        warn(f"state path {octal.escape_text(path)} was a file system of its own, and nothing is mounted there now")
    if (left := known.difference(paths) | now) != known:
        files.write_file(VOLUMES, "".join(f"{octal.escape_text(path)}\n" for path in sorted(left)))
