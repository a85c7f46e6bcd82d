"""What is mounted below /data in the running root is mounted in the base view as well: a volume for one state path.

The view has a mount of /data of its own, made at boot: it would not see what is mounted there later, and the runner
would read and write what lies beneath.
"""

from __future__ import annotations

from pyinfra_overlaymig.format.paths import DATA, LIVE, is_below
from pyinfra_overlaymig.runner import linux, mountinfo
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
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
