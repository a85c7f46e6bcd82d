"""What the runner asks of the kernel, where that has none of it left."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from pyinfra_overlaymig.runner import linux, spawn


def heard(descriptor: int, seconds: float) -> bool:
    ready = bool(select.select([descriptor], [], [], seconds)[0])
    linux.drain(descriptor)
    return ready


def test_a_watch_hears_of_a_change(tmp_path: Path) -> None:
    """And of nothing else."""
    descriptor = linux.inotify(str(tmp_path), linux.IN_MOVED_TO)
    assert not heard(descriptor, 0.05)
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(tmp_path / "name")
    assert heard(descriptor, 5)
    os.close(descriptor)


def test_where_no_watch_is_left_it_is_looked_now_and_then(tmp_path: Path) -> None:
    """A user may have 128, which fifty machines of a lab use up: nothing fails for that, and nobody waits for ever."""

    def use_up() -> int:
        held: list[int] = []
        while not held or str(Path(f"/proc/self/fd/{held[-1]}").readlink()) == "anon_inode:inotify":
            held.append(linux.inotify(str(tmp_path), linux.IN_MOVED_TO))
            if len(held) > 100_000:
                return 1
        begun = time.monotonic()
        looks = sum(heard(held[-1], 5) for _ in range(3))
        return 0 if looks == 3 and time.monotonic() - begun < 5 else 2

    assert spawn.wait(spawn.fork(use_up)) == 0


def test_options_that_the_kernel_would_cut_are_refused(tmp_path: Path) -> None:
    """A mount whose options fill more than a page would be another one than was asked for."""
    with pytest.raises(OSError, match="fill more than a page"):
        linux.mount("overlay", str(tmp_path), "overlay", 0, "lowerdir=" + "/x:" * 2000)
