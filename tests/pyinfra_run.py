"""A run of pyinfra for one operation on one host, without the host."""

from __future__ import annotations

from typing import Any

from pyinfra_testing.util import FakeState


class Run(FakeState):  # type: ignore[misc]  # pyinfra tells no types
    """Of one host, which may be foreseen to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failed_hosts: set[Any] = set()
        self.callback_handlers: list[Any] = []
        self.add_callback_handler = self.callback_handlers.append
