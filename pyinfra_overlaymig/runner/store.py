"""What is on the machine: generations, their stacks, and the records of migrations; nothing else reads these files."""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import FORMAT, FormatError
from pyinfra_overlaymig.format import generation as generations_format
from pyinfra_overlaymig.format import limits as limits_format
from pyinfra_overlaymig.format import plan as plan_format
from pyinfra_overlaymig.format import record as record_format
from pyinfra_overlaymig.format.paths import GENERATIONS, LAYERS, MIGRATIONS, RUN, STATE, SYSTEM
from pyinfra_overlaymig.runner import files
from pyinfra_overlaymig.runner.clock import now
from pyinfra_overlaymig.runner.say import refused, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyinfra_overlaymig.format.generation import Generation
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan
    from pyinfra_overlaymig.format.record import Record

_CURRENT = f"{GENERATIONS}/current"

_generations: dict[int, Generation] = {}
"""Those that were read: a generation's file is never changed."""


def layout() -> None:
    """Makes the directories of FORMAT.md that are missing; leaves with 3 where /data has another format."""
    files.make_dirs(STATE)
    files.make_dirs(SYSTEM, mode=0o700)
    # Its layers have programs of every age, setuid ones too, its records what scripts said.
    if os.stat(SYSTEM).st_mode & 0o077:
        os.chmod(SYSTEM, 0o700)
    files.make_dirs(
        *(f"{SYSTEM}/{name}" for name in ("layers", "migrations", "generations", "staging", "upper", "lock"))
    )
    if not files.there(f"{SYSTEM}/format"):
        files.write_file(f"{SYSTEM}/format", f"{FORMAT}\n")
    found = files.first_line(f"{SYSTEM}/format")
    if found != str(FORMAT):
        raise refused(
            f"/data/system has format {found}, this runner reads format {FORMAT}",
            "update pyinfra_overlaymig, then run its machine_prepared again",
        )


def current() -> int:
    """The generation that `current` names, 0 (the base alone) when there is none."""
    try:
        return int(os.path.basename(os.readlink(_CURRENT)))
    except FileNotFoundError:
        return 0


def running() -> int:
    """The generation that this boot runs, 0 (the base) when none was switched to."""
    return int(files.first_line(f"{RUN}/running") or 0)


def set_running(n: int) -> None:
    files.write_file(f"{RUN}/running", f"{n}\n")


def generations() -> list[int]:
    """The numbers of all generations that are recorded, in order."""
    return sorted(int(name) for name in files.names(GENERATIONS) if name.isdecimal())


def newest() -> int:
    """The highest number ever given out."""
    return max(generations(), default=0)


def generation(n: int) -> Generation:
    """The record of generation ``n``; one without anything where it cannot be read."""
    found = _generations.get(n)
    if found is None:
        try:
            found = generations_format.parse(files.read(f"{GENERATIONS}/{n}"))
        except FormatError:
            return generations_format.UNREADABLE
        _generations[n] = found
    return found


def stack(n: int | None = None) -> tuple[str, ...]:
    """The layers of generation ``n``, of the current one without; the lowest first."""
    n = current() if n is None else n
    return generation(n).layers if n else ()


def has(id: str) -> bool:
    """Whether ``id`` is a layer of the current generation."""
    return id in stack()


def write_generation(n: int, layers: tuple[str, ...], instead_of: int | None = None) -> None:
    """Records generation ``n``. The file is complete before it has its name."""
    from pyinfra_overlaymig.runner import base

    one = generations_format.Generation(now(), base.identity(), instead_of, layers)
    _generations.pop(n, None)
    files.write_file(f"{GENERATIONS}/{n}", generations_format.text(one))


def forget_generation(n: int) -> None:
    """Takes the record of generation ``n`` away: a layer that it has goes."""
    _generations.pop(n, None)
    files.drop(f"{GENERATIONS}/{n}")


def set_current(n: int) -> None:
    """The commit point: makes ``n`` current by one rename, and that rename durable."""
    if n == 0:
        files.drop(_CURRENT)
    else:
        files.replace_link(str(n), _CURRENT)
    files.sync_dir(GENERATIONS)


def whole(n: int, *, aloud: bool = True) -> bool:
    """Whether ``n`` is recorded completely and each of its layers is there; otherwise, ``aloud``, says what is not."""
    trouble = _trouble(n)
    if trouble and aloud:
        warn(trouble)
    return not trouble


def broken(stacks: Mapping[int, tuple[str, ...]]) -> list[int]:
    """Those of these generations that cannot be gone to. Only what has no layers is read for it."""
    there = {*files.names(LAYERS)}
    found: list[int] = []
    longest: tuple[str, ...] = ()
    for n in sorted(stacks, reverse=True):
        layers = stacks[n]
        # Most are the beginning of a newer one that is whole.
        if layers and longest[: len(layers)] == layers:
            continue
        if there.issuperset(layers) and (layers or not _trouble(n)):
            longest = max(longest, layers, key=len)
        else:
            found.append(n)
    return sorted(found)


def _trouble(n: int) -> str:
    if n == 0:
        return ""
    if not generation(n).made:
        return f"generation {n} is not readable"
    lacking = [layer for layer in stack(n) if not os.path.isdir(f"{LAYERS}/{layer}")]
    return f"generation {n} lacks its layer {lacking[0]}" if lacking else ""


def is_applied(id: str) -> bool:
    """Whether the migration ``id`` was finished, ever."""
    return os.path.isfile(f"{MIGRATIONS}/{id}/applied")


def applied(n: int) -> bool:
    """Whether each layer of ``n`` is there and its migration was finished."""
    return all(os.path.isdir(f"{LAYERS}/{layer}") and is_applied(layer) for layer in stack(n))


def before(n: int) -> int:
    """What ``n`` was made over by a migration: the newest generation below it with its stack but the topmost layer.

    0 when that is the base alone. Not just the one before by number: that one may have been taken back.
    """
    below = stack(n)[:-1]
    if not below:
        return 0
    return max((one for one in generations() if one < n and stack(one) == below), default=0)


def record(id: str) -> Record | None:
    """What a migration's record says, None where there is none."""
    text = files.read(f"{MIGRATIONS}/{id}/record")
    return record_format.parse(text) if text else None


def plan(id: str) -> Plan:
    """The plan that a migration was applied with."""
    return plan_format.read(files.read(f"{MIGRATIONS}/{id}/manifest"))


def limits(id: str) -> Limits:
    """How a migration was applied."""
    return limits_format.parse(files.read(f"{MIGRATIONS}/{id}/limits"))


def state_paths(n: int | None = None) -> list[str]:
    """The state paths of a generation's migrations (the current one's without ``n``), unescaped, sorted, each once."""
    found = {path for id in stack(n) if (one := record(id)) for path in one.state}
    return sorted(found, key=os.fsencode)
