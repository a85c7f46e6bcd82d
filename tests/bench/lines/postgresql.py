"""PostgreSQL's whole migration against its bare script, by hand, and its start until it answers.

By hand (a) on the running root of a fresh machine, (b) on a plain copy of the root, in a chroot on the same volume.
All on one machine that is made anew before each; its base has the packages in apt's cache, so that nothing is
downloaded but the lists' dates.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab.base import base_root
from pyinfra_overlaymig.lab.fleet import quiet
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from tests.bench.host import TOP
from tests.bench.inside import Failed, Inside
from tests.bench.line import NOW, Figures, Group, Line, Variant
from tests.bench.session import Bench, watch
from tests.rig import Rig

_FOLDER = TOP / "deploys/migrations/20240206-001_add_postgresql"
_HAND, _COPY = "by hand", "on a copy"
_WITHOUT, _WITH = ("postgresql.hand", "postgresql.copy"), ("postgresql.hand.audit", "postgresql.copy.audit")
_CACHED = ("var/cache/apt/archives", "var/lib/apt/lists")
_ROOT = "/data/bench-root"

# As the migration does it: no maintainer script starts a service; then as its service starts, until it answers.
_BY_HAND = """\
set -eu
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
sh /run/bench-install
sh /run/bench-prepare
setsid s6-setuidgid postgres sh /run/bench-run </dev/null >/run/bench-server 2>&1 &
until sh /run/bench-check; do sleep 0.02; done
"""
_MOUNT = f"""\
cd {_ROOT}
for name in proc sys dev run; do mount --rbind /$name $name; done
"""


def measure(bench: Bench) -> None:
    """Without audit and with, and both by hand, in each round."""
    with bench.own_lab(0, _cache(bench)) as lab:
        labs.up(lab, 1)
        variants = [
            Variant(_HAND, partial(_by_hand, bench, lab, copied=False)),
            Variant(_COPY, partial(_by_hand, bench, lab, copied=True)),
            Variant(NOW, partial(_migration, bench, lab, watched=False)),
            Variant(NOW, partial(_migration, bench, lab, watched=True)),
        ]
        if not bench.quick:
            # So that none is the first to read the base.
            _migration(bench, lab, watched=False)
        bench.rounds(variants, full=9, quick=1)


def _cache(bench: Bench) -> Path:
    """A lab's cache whose base has the packages; on the volume, where the copy of the root is too."""
    bench.say("  making a base that has the packages in apt's cache")
    base = base_root(bench.lab.cache, quiet)
    made = bench.directory / "cache" / base.name
    made.parent.mkdir()
    # The daemon is the host's: all labs share it.
    (made.parent / "audit").symlink_to(bench.lab.cache / "audit")
    subprocess.run(["cp", "-a", base, made], check=True)
    rig = Rig(bench.lab, "lab-1", bench.directory)
    rig.reset()
    script = (_FOLDER / "install.sh").read_text()
    rig.sh(script.replace("apt-get install", "apt-get install --download-only"))
    packed = subprocess.run(rig.machine.enter("tar", "-C", "/", "-c", *_CACHED), stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-C", made, "-x"], input=packed.stdout, check=True)
    if not list((made / _CACHED[0]).glob("postgresql-1*.deb")):
        raise Failed("apt kept no packages in its cache")
    return made.parent


def _fresh(bench: Bench, lab: labs.Lab) -> Rig:
    rig = Rig(lab, "lab-1", bench.directory / "migrations/postgresql")
    rig.reset()
    return rig


def _migration(bench: Bench, lab: labs.Lab, *, watched: bool) -> Figures:
    rig = _fresh(bench, lab)
    watch(lab, watched=watched)
    with Inside(rig) as inside:
        bundle = inside.put("bundle", pack(load(_FOLDER)))
        bench.rest(rig)
        done = inside.system_migrate("apply", "-", stdin=bundle)
    (told,) = rig.status().migrations
    if (told.audit == "on") is not watched:
        raise Failed(f"audit is {told.audit}: {done.output[-500:]}")
    return dict.fromkeys(_WITH if watched else _WITHOUT, done.seconds)


def _by_hand(bench: Bench, lab: labs.Lab, *, copied: bool) -> Figures:
    rig = _fresh(bench, lab)
    watch(lab, watched=False)
    service = next(one for one in load(_FOLDER).services if one.name == "postgresql")
    with Inside(rig) as inside:
        inside.put("install", (_FOLDER / "install.sh").read_bytes())
        for name, text in (("prepare", service.prepare), ("run", service.run), ("check", service.check)):
            inside.put(name, (text or ":").encode())
        if copied:
            _copy_root(rig)
        hand = inside.put("hand", _BY_HAND.encode())
        bench.rest(rig)
        done = inside.run(*(("chroot", _ROOT) if copied else ()), "/bin/sh", hand)
    _not_downloaded(rig, _ROOT if copied else "")
    wanted = "copy" if copied else "hand"
    return {name: done.seconds for name in (*_WITHOUT, *_WITH) if wanted in name}


def _copy_root(rig: Rig) -> None:
    """All of the machine's root as it runs, on the volume without any overlay."""
    rig.sh(f"rm -rf {_ROOT}; mkdir {_ROOT}; cp -ax /. {_ROOT}; {_MOUNT}")


def _not_downloaded(rig: Rig, root: str) -> None:
    """No package came into apt's cache since the scripts were put into the machine."""
    came = rig.sh(f"find {root}/{_CACHED[0]} -name '*.deb' -cnewer /run/bench-hand").split()
    if came:
        raise Failed(f"{len(came)} packages were downloaded, which says something of the network: {came[0]}")


def _line(name: str, over: str, at_most: float, how: str) -> Line:
    title = f"PostgreSQL's whole migration{how}, by the same {over}"
    return Line(name, title, "s", at_most, over=over)


GROUP = Group(
    "postgresql",
    95,
    (
        _line("postgresql.hand", _HAND, 0.95, ""),
        _line("postgresql.hand.audit", _HAND, 1.00, " with audit"),
        _line("postgresql.copy", _COPY, 1.00, ""),
        _line("postgresql.copy.audit", _COPY, 1.05, " with audit"),
    ),
    measure,
    minutes=25,
    quick=100,
)
