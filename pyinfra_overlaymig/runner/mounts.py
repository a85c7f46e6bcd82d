"""The overlay of a stack, and mounts that have an owner: what is mounted and how it goes stand together."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from pyinfra_overlaymig.format.paths import LAYERS
from pyinfra_overlaymig.runner import files, linux
from pyinfra_overlaymig.runner.linux import MS_BIND, MS_RDONLY, MS_REMOUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.runner.mountinfo import Mount

PLAIN = "redirect_dir=off,metacopy=off,index=off"
"""Overlay features that would make an upper directory unreadable without the mount; a kernel may have them on."""


@contextmanager
def mounted(
    source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None
) -> Iterator[str]:
    """A mount that goes at the end, whatever happens."""
    linux.mount(source, target, kind, flags, data)
    try:
        yield target
    finally:
        linux.umount(target, linux.MNT_DETACH)


def bind_read_only(source: str, target: str) -> None:
    """``source`` at ``target``, where it cannot be written."""
    linux.mount(source, target, flags=MS_BIND)
    linux.mount(None, target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def links(directory: str, layers: tuple[str, ...]) -> str:
    """Short names for ``layers`` in ``directory``, and the value of lowerdir= relative to it, the base lowest.

    A mount's options end at one page: 400 layers fit only under names of a few characters. A name that is right already
    stays: from one generation to the next most are.
    """
    files.make_dirs(directory, mode=0o700)
    for number, target in enumerate(("/", *(f"{LAYERS}/{layer}" for layer in layers))):
        _link(target, f"{directory}/{number}")
    return ":".join(str(number) for number in range(len(layers), -1, -1))


def _link(target: str, path: str) -> None:
    with suppress(FileNotFoundError):
        if os.readlink(path) == target:
            return
    files.replace_link(target, path)


def mount_lower(directory: str, target: str, layers: tuple[str, ...], flags: int = 0) -> None:
    """``layers`` over the base, read-only, at ``target``. Without layers, the base itself."""
    if not layers:
        bind_read_only("/", target)
        return
    lower = links(directory, layers)
    with files.inside(directory):
        linux.mount("overlay", target, "overlay", MS_RDONLY | flags, f"{PLAIN},lowerdir={lower}")


def mount_stack(
    directory: str, target: str, layers: tuple[str, ...], upper: str, work: str, *options: str, flags: int = 0
) -> None:
    """``layers`` over the base, writable in ``upper``.

    ``upper`` and ``work`` are reached through links too, so that no character of theirs can be read as an option.
    """
    lower = links(directory, layers)
    _link(upper, f"{directory}/u")
    _link(work, f"{directory}/w")
    with files.inside(directory):
        data = ",".join([PLAIN, f"lowerdir={lower}", "upperdir=u", "workdir=w", *options])
        linux.mount("overlay", target, "overlay", flags, data)


def is_running_root(one: Mount) -> bool:
    """Whether it is as `mount_stack` makes a root that runs, now or before; that of a stage is volatile."""
    data = one.data.split(",")
    return one.kind == "overlay" and "upperdir=u" in data and "volatile" not in data


def mount_over(directory: str, target: str, *options: str, flags: int = 0) -> None:
    """An overlay of the directories `lower`, `upper` and `work` in ``directory``, at ``target``."""
    with files.inside(directory):
        data = ",".join([PLAIN, "lowerdir=lower,upperdir=upper,workdir=work", *options])
        linux.mount("overlay", target, "overlay", flags, data)
