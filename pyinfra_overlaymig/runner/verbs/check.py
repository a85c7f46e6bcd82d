"""check: names each capability that this machine lacks, having tried what can be tried without a trace."""

from __future__ import annotations

from pyinfra_overlaymig.format.paths import DATA
from pyinfra_overlaymig.runner import base, capabilities, mountinfo
from pyinfra_overlaymig.runner.say import refused, say, usage, warn


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("check takes no arguments", "system-migrate check")
    base.need_root()
    if lacking := capabilities.missing():
        raise refused(f"this machine lacks: {', '.join(lacking)}", capabilities.hint(lacking))
    if unfit := capabilities.unfit(is_booted=capabilities.booted()):
        raise refused(*unfit)
    if failed := capabilities.probe():
        raise refused(f"this machine cannot: {', '.join(failed)}", "look at the kernel and at the file system of /data")
    if not mountinfo.is_mount(DATA):
        warn(f"{DATA} is not a mount point: make sure that it outlives a restart")
    say("this machine has all that migrations need")
    return 0
