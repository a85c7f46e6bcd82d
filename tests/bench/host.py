"""Names the machine that figures are from: without it they say nothing."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

TOP = Path(__file__).parent.parent.parent
_IDLE = 0.3
"""Load for each core from which on the figures are not to be believed."""


def name(directory: Path) -> dict[str, str]:
    """What the figures depend on; ``directory`` is on the volume that machines have."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "checkout": _git("describe", "--always", "--dirty", "--abbrev=10"),
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memory": f"{_memory() / 2**30:.1f} GiB",
        "volume": f"{_type_of(directory)} on a loop device, its file on {_type_of(Path('/var/tmp'))}",
        "python": platform.python_version(),
        "load before": " ".join(f"{one:.2f}" for one in os.getloadavg()),
    }


def is_idle() -> bool:
    """Whether nothing else has run in the last minute."""
    return os.getloadavg()[0] <= _IDLE * len(os.sched_getaffinity(0))


def stolen() -> tuple[int, int]:
    """Ticks that a hypervisor gave to others, and all ticks, since the boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", TOP, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _type_of(path: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace("ext2/ext3", "ext4")
