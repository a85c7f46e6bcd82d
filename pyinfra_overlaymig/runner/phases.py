"""A transaction as a value: which migration, how far it got, what there was before. transaction.py takes it on, and
undo.py back.
"""

from __future__ import annotations

from enum import Enum, auto

from pyinfra_overlaymig.runner import as_before, stage, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan
    from pyinfra_overlaymig.runner.audit import session as audit


class Phase(Enum):
    """How far a transaction got; what is undone depends on nothing else."""

    STAGE = auto()
    REFUSED = auto()
    NOTHING = auto()
    BROKEN = auto()
    COMMIT = auto()
    FINISH = auto()


class Transaction:
    """One run of it. ``before``: the generation to go back to. ``whole``: whether that is up as it was."""

    def __init__(self, id: str, plan: Plan, limits: Limits) -> None:
        self.id = id
        self.limits = limits
        self.stage = stage.of(id, plan)
        self.phase = Phase.STAGE
        self.before = store.current()
        self.seen = as_before.look()
        self.whole = True
        self.session: audit.Session | None = None

    @property
    def directory(self) -> str:
        return self.stage.directory
