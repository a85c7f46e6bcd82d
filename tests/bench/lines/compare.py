"""Comparing a stage of 5,000 and of 100,000 entries with the stack below it, on trees made here.

It is the runner's own function, in a process of its own, as on a machine; beside it the one of the runner in sh, on the
same trees. `sha256sum` alone on the files of the upper is in the plots and the JSON: a floor, as they have to be read.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tarfile
import time
from functools import partial
from pathlib import Path

from tests.bench.host import TOP
from tests.bench.line import NOW, SH, Figures, Group, Line, Variant
from tests.bench.session import OLD, Bench

_PROGRAM = f"""\
import sys, time
sys.path.insert(0, {str(TOP)!r})
from pyinfra_overlaymig.runner import compare
begun = time.monotonic()
found = compare.compare(sys.argv[1], sys.argv[2])
print(time.monotonic() - begun, len(found.changes) + len(found.unchanged) + len(found.carriers))
"""
_OLD_PROGRAM = """\
set -eu
export LC_ALL=C TMPDIR=$3
. "$4"
(cd "$1" && find . -mindepth 1 -print0) >"$3/paths"
compare "$1" "$2" "$3"
cat "$3/changes" "$3/unchanged" "$3/unchanged.dirs" | wc -l
"""
_ALONE = "sha256sum"
_FOLDER = 25
"""Files in a directory."""


def measure(bench: Bench) -> None:
    """The small stage and the large one, each against the floor."""
    for entries, name, full, quick in ((5_000, "compare.small", 21, 7), (100_000, "compare.large", 9, 3)):
        top = bench.directory / f"compare-{entries}"
        bench.say(f"  making a stage of {entries:,} entries")
        made = make(top, entries)
        subprocess.run(["sync", "-f", top], check=True)
        variants = [
            Variant(NOW, partial(_compare, top, made, name)),
            Variant(SH, partial(_compare_in_sh, top, made, name)),
            Variant(_ALONE, partial(_read, top, name)),
        ]
        for variant in variants:
            # What is compared has just been written by the script: it is in memory.
            variant.measure()
        bench.rounds(variants, full=full, quick=quick)
        shutil.rmtree(top)


def _compare(top: Path, made: int, name: str) -> Figures:
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-B", "-X", "utf8", "-c", _PROGRAM, top / "upper", top / "lower"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, found = done.stdout.split()
    assert int(found) == made, f"{found} of {made} entries were compared"
    return {name: float(seconds)}


def _compare_in_sh(top: Path, made: int, name: str) -> Figures:
    lists = top / "lists"
    shutil.rmtree(lists, ignore_errors=True)
    lists.mkdir()
    with tarfile.open(OLD) as archive:
        archive.extract("lib/compare.sh", top, filter="data")
    begun = time.monotonic()
    done = subprocess.run(
        ["dash", "-c", _OLD_PROGRAM, "sh", top / "upper", top / "lower", lists, top / "lib/compare.sh"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    assert int(done.stdout) == made, f"{done.stdout} of {made} entries were compared: {done.stderr[-500:]}"
    return {name: seconds}


def _read(top: Path, name: str) -> Figures:
    """Names come from a file, so that nothing but the reading is measured."""
    names = top / "names"
    if not names.exists():
        files = [str(path) for path in (top / "upper").rglob("*") if path.is_file()]
        names.write_text("\0".join(files))
    begun = time.monotonic()
    subprocess.run(["xargs", "-0", "-a", names, "sha256sum"], stdout=subprocess.DEVNULL, check=True)
    return {name: time.monotonic() - begun}


def make(top: Path, entries: int) -> int:
    """Nine of ten files are new, as after an install; others have changed, or were only copied up. How many entries.

    Their sizes are those of packages: half of them below 2 kB, one in a hundred of 256 kB.
    """
    chance = random.Random(entries)  # noqa: S311 - to be the same again
    block = chance.randbytes(1 << 18)
    made = 0
    number = 0
    while made < entries:
        folder = f"usr/share/p{number // _FOLDER}"
        if number % _FOLDER == 0:
            made += _directories(top, folder)
        size = 1 << 18 if number % 100 == 99 else int(2 ** chance.uniform(8, 14))
        start = chance.randrange(len(block) - size + 1)
        _file(top, f"{folder}/f{number}", block[start : start + size], number % 20)
        made, number = made + 1, number + 1
    return made


def _directories(top: Path, folder: str) -> int:
    """Both sides get the directory; how many entries are new in the upper."""
    (top / "lower" / folder).mkdir(parents=True)
    fresh = sum(not (top / "upper" / above).exists() for above in (folder, *map(str, list(Path(folder).parents)[:-1])))
    (top / "upper" / folder).mkdir(parents=True)
    return fresh


def _file(top: Path, name: str, data: bytes, kind: int) -> None:
    (top / "upper" / name).write_bytes(data)
    if kind > 1:
        return
    below = top / "lower" / name
    below.write_bytes(data if kind == 0 else bytes(len(data)))
    if kind == 0:
        at = (top / "upper" / name).stat()
        os.utime(below, ns=(at.st_atime_ns, at.st_mtime_ns))


GROUP = Group(
    "compare",
    15,
    (
        Line("compare.small", "comparing a stage of 5,000 entries", "s", 0.09),
        Line("compare.large", "comparing a stage of 100,000 entries", "s", 1.3),
    ),
    measure,
    minutes=6,
    quick=60,
)
