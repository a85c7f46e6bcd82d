"""Why a migration cannot be applied now; all of it before anything is touched."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.format import refusals, rules
from pyinfra_overlaymig.format.paths import DATA, LAYERS, LIVE, SCANDIR, SHARED, SYSTEM
from pyinfra_overlaymig.runner import (
    capabilities,
    files,
    package_manager,
    reserve,
    services,
    snapshots,
    state_places,
    store,
    trees,
)
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.say import Leave, refused, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.format.needs import Unfit
    from pyinfra_overlaymig.runner.bundle import Bundle

_SOME = 64 << 20
"""Bytes that a script of any use makes."""
_INODES = 2048
_ROOM = "remove what is not needed, or make the volume larger"


def check(bundle: Bundle) -> None:
    """Leaves with 3, saying why, when the migration cannot be applied."""
    _refuse(refusals.lacking(capabilities.missing()))
    if unfit := capabilities.unfit(is_booted=capabilities.booted()):
        raise refused(*unfit)
    _check_relations(bundle)
    _refuse(refusals.stopped(bundle.plan.id, bundle.plan.stop, {*services.here(), *bundle.plan.services}))
    _check_order(bundle)
    _check_shared(bundle)
    _check_state(bundle)
    if bundle.plan.services and not (services.supported() or services.is_nobodys()):
        raise refused(
            f"{bundle.plan.id} has services, and s6-svscan does not run on {SCANDIR}",
            f"boot the machine through: system-migrate boot s6-svscan {SCANDIR}",
        )
    audit.preflight(bundle.limits, bundle.plan.id)
    _check_space(bundle)
    package_manager.await_done()
    reserve.fill()


def _refuse(found: Iterator[Unfit]) -> None:
    for one in found:
        raise refused(*one)


def _check_relations(bundle: Bundle) -> None:
    id, stack = bundle.plan.id, store.stack()
    conflicts = {other: store.plan(other).conflicts for other in stack}
    _refuse(refusals.relations(id, bundle.plan.depends, bundle.plan.conflicts, conflicts))
    if id in stack:
        raise Leave(20, f"{id} is in the current generation and was never finished", "run: system-migrate recover")


def _check_state(bundle: Bundle) -> None:
    """By what was changed by hand, too: state is to be bound over that."""
    if bundle.limits.drift != "refuse":
        return
    if why := state_places.troubles(LIVE, bundle.plan.state, bundle.plan.state):
        raise refused(*why)


def _check_order(bundle: Bundle) -> None:
    """Ids order what is pending: a late one goes on top. What an operator makes on one machine is in nobody's order."""
    if bundle.plan.local:
        return
    id, last = bundle.plan.id, max((one for one in store.stack() if not store.plan(one).local), default="")
    if bundle.limits.strict_order:
        _refuse(refusals.out_of_order(id, last))
    if last > id:
        say(f"{id} goes on top of {last}, although it is older")


def _check_shared(bundle: Bundle) -> None:
    """State in place of what packages share would hide what layers have there, and will have."""
    for path in set(SHARED).intersection(bundle.plan.state).difference(store.state_paths()):
        for layer in ("the base", *store.stack()):
            top = path if layer == "the base" else f"{LAYERS}/{layer}{path}"
            if files.plain_dir(top) and any(not stat.S_ISDIR(found.st_mode) for _, found in trees.walk(top)):
                raise refused(*rules.shared_trouble(path, layer))


def _check_space(bundle: Bundle) -> None:
    """Room for the bundle's files twice, for snapshots, and some for what the script makes."""
    need = trees.disk_usage(bundle.directory) * 2 + _SOME
    if bundle.limits.snapshot:
        need += snapshots.space(bundle.plan.state)
    found = os.statvfs(SYSTEM)
    free = found.f_bavail * found.f_frsize
    if free < need:
        raise refused(f"{bundle.plan.id} needs {need >> 10} KiB free in {DATA}, which has {free >> 10}", _ROOM)
    # A file system that counts no inodes (btrfs) says it has none at all.
    if found.f_files > 0 and found.f_ffree < _INODES:
        raise refused(f"{bundle.plan.id} needs {_INODES} inodes free in {DATA}, which has {found.f_ffree}", _ROOM)
