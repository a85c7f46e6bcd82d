"""What a script finds in its stage: the stack's overlay, the mounts of any root, files/. stage_state.py adds state."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from pyinfra_overlaymig.format.paths import LIVE, RUN, SERVICES
from pyinfra_overlaymig.runner import copies, files, linux, mounts, rooted, stage_kernel, store, topmost, trees
from pyinfra_overlaymig.runner.linux import MS_NODEV, MS_NOEXEC, MS_NOSUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.stage import Stage

_POLICY_PLACE = "usr/sbin/policy-rc.d"
_POLICY = "#!/bin/sh\nexit 101\n"
_LENT = ("etc/resolv.conf", "etc/hosts")
"""Files of the running root that a platform may have mounted over the image's."""
_SECOND, _NEAR = 10**9, 60
_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC


def mount(stage: Stage) -> None:
    """The root of a stage: an overlay whose syncs are skipped, as a crash throws it away, and what programs need.

    /run is the stage's own: sockets of the live services are not a migration's to talk to. /data holds nothing and is
    not to be written: a migration must not reach its own layers. Devices are opened in /dev alone: see stage_kernel.
    """
    root = stage.root
    work = f"{stage.directory}/work"
    mounts.mount_stack(f"{RUN}/stack", root, store.stack(), stage.upper, work, "volatile", flags=MS_NODEV)
    for name in ("proc", "sys", "dev", "run", "tmp", "data"):
        if not os.path.isdir(f"{root}/{name}"):
            files.make_dirs(f"{root}/{name}")
    stage_kernel.mount(root)
    linux.mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    linux.mount("tmpfs", f"{root}/data", "tmpfs", _SAFE, "mode=755")
    files.make_dirs(f"{root}/run/lock", f"{root}/run/migration")
    os.chmod(f"{root}/run/lock", 0o1777)


def lend(stage: Stage) -> None:
    """Puts files into the stage that are not to stay: names as the live root resolves them, and a policy-rc.d that
    lets no maintainer script start a service. Written, not bound over: a script may replace or remove them.
    """
    lent = [path for path in _LENT if _lend_live(stage.root, path)]
    policy = rooted.resolve(stage.root, _POLICY_PLACE)
    if os.path.isdir(os.path.dirname(policy)) and (_plain(policy) or not files.there(policy)):
        files.write_plain(policy, _POLICY, 0o755)
        os.chmod(policy, 0o755)
        lent.append(_POLICY_PLACE)
    files.make_dirs(f"{stage.directory}/lent")
    places = [rooted.resolve(stage.root, path) for path in lent]
    for number, place in enumerate(places):
        copies.copy_entry(place, f"{stage.directory}/lent/{number}")
    files.write_lines(f"{stage.directory}/lent/paths", [place[len(stage.root) + 1 :] for place in places])


def _lend_live(root: str, path: str) -> bool:
    """Whether what the live root has there is to be taken back; what it is a link to in /run goes with the stage's."""
    text = files.read(rooted.resolve(LIVE, path))
    place = rooted.resolve(root, path)
    if not text or (files.there(place) and not _plain(place)) or files.read(place) == text:
        return False
    in_run = place.startswith(f"{root}/run/")
    if in_run:
        files.make_dirs(os.path.dirname(place))
    if not os.path.isdir(os.path.dirname(place)):
        return False
    fresh = not files.there(place)
    files.write_plain(place, text)
    if fresh:
        os.chmod(place, 0o644)
    return not in_run


def _plain(path: str) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def take_back_lent(stage: Stage) -> None:
    """Takes out of the upper what was lent and left as it was; what a script made of it is the script's."""
    for number, path in enumerate(files.lines(f"{stage.directory}/lent/paths")):
        made, lent = f"{stage.upper}/{path}", f"{stage.directory}/lent/{number}"
        if not _plain(made) or files.read(made) != files.read(lent) or _is_own_policy(made, lent):
            continue
        own = topmost.file(path)
        if own and _about(made) != _about(lent):
            # Its owner or mode is a change, and what it holds is none.
            files.write_plain(made, files.read(own))
        else:
            os.unlink(made)
    files.drop(f"{stage.directory}/lent")


def _is_own_policy(made: str, lent: str) -> bool:
    """Whether the script wrote a policy-rc.d of the same words. Names that it wrote again as they were are the
    platform's still.
    """
    policy = os.path.basename(made) == os.path.basename(_POLICY_PLACE)
    return policy and os.lstat(made).st_mtime_ns != os.lstat(lent).st_mtime_ns


def _about(path: str) -> tuple[object, ...]:
    found = os.lstat(path)
    return found.st_mode, found.st_uid, found.st_gid, copies.attributes(path, overlay=False)


def lay_files(stage: Stage) -> None:
    """The bundle's files/ over the stage, and its services' directories beside them; all of one time, which is now.

    Directories that exist keep their owner, mode and being links.
    """
    source = f"{stage.directory}/files"
    moment = later(time.time_ns(), _replaced(source, stage.root))
    files.write_plain(f"{stage.directory}/moment", f"{moment}\n")
    if os.path.isdir(source):
        _lay(source, stage.root, "", moment)
    for name in files.names(f"{stage.directory}/services"):
        target = f"{stage.root}/{SERVICES}/{name}"
        files.make_dirs(os.path.dirname(target))
        files.drop(target)
        copies.copy_tree(f"{stage.directory}/services/{name}", target)
        for path in (target, *(f"{target}/{path}" for path, _ in trees.walk(target))):
            os.utime(path, ns=(moment, moment), follow_symlinks=False)


def _replaced(source: str, root: str) -> list[int]:
    """The times of the files that those in ``source`` take the place of."""
    if not os.path.isdir(source):
        return []
    found = (trees.lstat(rooted.resolve(root, path)) for path, _ in trees.walk(source))
    return [one.st_mtime_ns for one in found if one and stat.S_ISREG(one.st_mode)]


def later(moment: int, replaced: list[int]) -> int:
    """``moment``, or up to seconds after it: not the second of a file that is replaced, as what Python compiled, and
    web servers gave out, is told by second and length. A time that is far ahead is nobody's of just now.
    """
    near = [time // _SECOND for time in replaced if 0 <= time // _SECOND - moment // _SECOND < _NEAR]
    return (max(near) + 1) * _SECOND if near else moment


def _lay(source: str, root: str, path: str, moment: int) -> None:
    """What is in ``source`` becomes what is at ``path`` in ``root``."""
    target = rooted.resolve(root, path)
    for entry in sorted(os.scandir(source), key=lambda one: os.fsencode(one.name)):
        place = f"{target}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            _make_directory(rooted.resolve(root, f"{path}/{entry.name}"), place, moment)
            _lay(entry.path, root, f"{path}/{entry.name}", moment)
            continue
        if files.plain_dir(place):
            raise IsADirectoryError(21, "files/ has a file where the machine has a directory", place)
        with suppress(FileNotFoundError):
            os.unlink(place)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        else:
            copies.copy_entry(entry.path, place)
        os.chown(place, 0, 0, follow_symlinks=False)
        if not entry.is_symlink():
            os.chmod(place, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode))
        os.utime(place, ns=(moment, moment), follow_symlinks=False)


def _make_directory(meant: str, place: str, moment: int) -> None:
    """``place`` is a directory, or a link to one; ``meant`` is what it leads to inside of the stage."""
    if os.path.isdir(meant):
        return
    if files.there(place):
        os.unlink(place)
    os.mkdir(place, 0o755)
    os.utime(place, ns=(moment, moment))
