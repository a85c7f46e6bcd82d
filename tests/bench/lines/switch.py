"""A live switch: for how long all processes stand still, as the runner says, and what a client loses meanwhile."""

from __future__ import annotations

import re
from functools import partial

from tests.bench.client import Client
from tests.bench.inside import Failed, Inside
from tests.bench.line import Figures, Group, Line, Variant
from tests.bench.session import Bench

_SERVICE, _ABOVE = "20250101-001_service", "20250102-001_above"
_PORT = 7007
_SAID = re.compile(r"the machine stood still for ([0-9.]+) ms")

# One process that accepts, answers and closes: it forks nothing, so what is lost is lost by the switch.
_SERVER = f"""\
cat >/usr/local/bin/answer <<'END'
import socket
with socket.create_server(("0.0.0.0", {_PORT}), backlog=128) as server:
    while True:
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"ok")
END
"""
_RUN = "exec /usr/bin/python3 -I -S /usr/local/bin/answer"
_CHECK = f"""/usr/bin/python3 -I -S -c 'import socket; socket.create_connection(("127.0.0.1", {_PORT}), 1).recv(2)'"""


def measure(bench: Bench) -> None:
    """Both runners; the one in sh holds nothing still, and says nothing of it."""
    with bench.both() as machines:
        for inside in machines.values():
            service = {"answer": {"run": _RUN, "check": _CHECK}}
            applied = (
                inside.rig.apply(_SERVICE, _SERVER, services=service),
                inside.rig.apply(_ABOVE, "echo above >/etc/above"),
            )
            for done in applied:
                assert done.code == 0, done.text
        variants = [Variant(series, partial(_back_and_forth, inside)) for series, inside in machines.items()]
        bench.rounds(variants, full=20, quick=6)


def _back_and_forth(inside: Inside) -> Figures:
    with Client(inside.rig.machine.address, _PORT) as client:
        said = [inside.system_migrate("rollback", id).output for id in (_SERVICE, _ABOVE)]
        heard = client.end()
    if not heard.asked:
        raise Failed("the client asked nothing")
    found = [float(one[1]) for one in map(_SAID.search, said) if one]
    still = {"switch.standstill": sum(found) / len(found)} if found else {}
    return {**still, "switch.lost": heard.lost, "switch.longest": heard.longest * 1000}


GROUP = Group(
    "switch",
    50,
    (
        Line("switch.standstill", "standstill of a live switch", "ms", 10, note="mean of a way back and forth"),
        Line(
            "switch.lost",
            "requests lost over a rollback back and forth",
            "requests",
            0,
            worst=True,
            note="a client asks every 5 ms over a connection of its own; lost: no answer within a second",
        ),
        Line("switch.longest", "longest answer meanwhile", "ms", 100, note="no target of the issue: a line to look at"),
    ),
    measure,
    minutes=5,
    quick=25,
)
