"""Services under s6 without migrations: what is asked, what is done about it, and both on a real machine."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactProcessError, OperationError, StringCommand
from pyinfra.context import ctx_host, ctx_state
from pyinfra_testing.util import create_host

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.facts import S6Services
from pyinfra_overlaymig.facts.service import Death, S6Service, definition
from pyinfra_overlaymig.format.paths import LOGS
from pyinfra_overlaymig.migration.model import Service
from pyinfra_overlaymig.migration.services import render_alone
from pyinfra_overlaymig.operations import s6_service
from tests.pyinfra_run import run
from tests.rig import Rig

TOP = Path(__file__).parent.parent
RUN = "exec sleep 4949"
DEFINED = definition(render_alone(Service("demo", run=RUN), f"{LOGS}/demo"))
UP = S6Service(
    "demo", up=True, ready=True, pid=7, wanted_up=True, since=1, reason="", supervised=True, enabled=True, deaths=(),
    needs=(), definition=DEFINED, kept=DEFINED,
)  # fmt: skip
DOWN = replace(UP, up=False, ready=False, pid=None, wanted_up=False)
HANGS = replace(UP, ready=False)


class Answers(dict[str, Any]):
    """What a fact answers to whatever arguments it is asked with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, _key: str, _default: Any = None) -> Any:
        return self.answer


def commands_of(
    found: S6Service | dict[str, S6Service] | None, *, executing: bool = False, known: bool = True, **arguments: Any
) -> tuple[list[StringCommand], Any]:
    """The commands that the operation yields for the service demo as it was found, or for all of them, and the host."""
    if not isinstance(found, dict):
        found = {"demo": found} if found else {}
    state = run(executing=executing)
    host = create_host(state)
    host.log = lambda _line, **_: None
    host.fact = type("Facts", (), {})()
    setattr(host.fact, "service.S6Services", Answers(found if known else None))
    with ctx_state.use(state), ctx_host.use(host):
        return list(s6_service._inner(**{"service": "demo"} | arguments)), host


def steps_of(found: S6Service | None, **arguments: Any) -> str:
    """What the machine is told to do, empty where it is told nothing."""
    commands, _ = commands_of(found, **arguments)
    return commands[0].get_raw_value().partition(" s6_service ")[2].split(" ", 6)[-1] if commands else ""


@pytest.mark.parametrize(
    ("found", "arguments", "steps"),
    [
        (UP, {}, ""),
        (UP, {"run": RUN}, ""),
        (DOWN, {"running": False}, ""),
        (DOWN, {"running": False, "restarted": True, "reloaded": True}, ""),
        (DOWN, {"running": None, "restarted": True}, ""),
        (UP, {"running": None, "enabled": True}, ""),
        (None, {"present": False}, ""),
        (DOWN, {}, "up"),
        (HANGS, {}, "up"),
        (replace(UP, wanted_up=False), {}, "up"),
        (UP, {"running": False}, "down"),
        (replace(DOWN, wanted_up=True), {"running": False}, "down"),
        (UP, {"restarted": True}, "restart"),
        (UP, {"restarted": True, "reloaded": True}, "restart"),
        (UP, {"reloaded": True}, "signal h"),
        (UP, {"reloaded": "usr1"}, "signal 1"),
        (UP, {"enabled": False}, "disable"),
        (DOWN, {"enabled": False, "running": None}, "disable"),
        (replace(UP, enabled=False), {"enabled": True, "run": RUN}, "enable"),
        (None, {"run": RUN}, "define up up"),
        (None, {"run": RUN, "running": False, "enabled": False}, "define down down disable"),
        (None, {"run": RUN, "running": None}, "define same"),
        (replace(UP, definition="other"), {"run": RUN, "restarted": True, "reloaded": True}, "define up up"),
        (replace(UP, kept=None), {"run": RUN}, "define up up"),
        (replace(UP, supervised=False), {"run": RUN}, "define up up"),
        (replace(UP, kept=None), {"run": RUN, "sourcedir": ""}, ""),
        (replace(UP, kept=None, definition=None), {"run": RUN, "sourcedir": ""}, "define up up enable"),
        (replace(UP, definition=None, enabled=False), {"run": RUN, "sourcedir": ""}, "define up up disable"),
        (UP, {"run": RUN, "user": "nobody"}, "define up up"),
        (UP, {"present": False}, "remove"),
        (DOWN, {"present": False, "running": False}, "remove"),
    ],
)
def test_only_what_differs_is_done(found: S6Service | None, arguments: dict[str, Any], steps: str) -> None:
    """What is as wanted is left alone; a change is as small as it can be."""
    assert steps_of(found, **arguments) == steps


def test_nothing_to_do_is_said() -> None:
    """A service that is as wanted says how it is."""
    assert commands_of(UP)[1].noop_description == "service demo is ready"
    assert commands_of(DOWN, running=False)[1].noop_description == "service demo is down"
    assert commands_of(None, present=False)[1].noop_description == "service demo is not there"


def failing(found: S6Service | None, **arguments: Any) -> str:
    (command,), _ = commands_of(found, executing=True, **arguments)
    done = subprocess.run(["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def test_what_is_not_known_is_not_touched() -> None:
    """A host whose services could not be asked fails, and is not taken for one without any."""
    assert "are unknown" in failing(None, known=False, run=RUN)


def test_a_service_that_is_not_there_is_named() -> None:
    """With what there is; before the run as well, unless the run brings it."""
    (_,), host = commands_of(UP, service="other")
    assert host.state.failed_hosts == {host}
    assert "has no service other\n  hint: it has: demo" in failing(UP, service="other")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"service": "../../etc"}, "no service name"),
        ({"service": "-a"}, "no service name"),
        ({"service": "A@b", "run": RUN}, "no service name"),
        ({"run": RUN, "down_signal": "BYE"}, r"(?s)no signal.*hint: write it like SIGINT"),
        ({"run": RUN, "check": "true", "notification_fd": 3}, "exclude each other"),
        ({"user": "nobody"}, "has no `run`"),
        ({"run": RUN, "environment": {"A B": "x"}}, "no variable name"),
        ({"run": RUN, "environment": {"PORT": 80}}, "must be text"),
        ({"run": RUN, "needs": ("demo",)}, "needs itself"),
        ({"run": RUN, "max_death_tally": 4097}, "cannot be 4097"),
        ({"run": RUN, "log": "var/log"}, "absolute path"),
        ({"scandir": "run/service"}, "scandir must be an absolute path"),
        ({"livedir": ""}, "livedir must be an absolute path"),
        ({"reloaded": "SEGV"}, "sends no signal 'SEGV', but SIGHUP"),
        ({"run": "if true; then"}, "is no sh as it stands"),
    ],
)
def test_arguments_are_checked_before_any_machine_is_asked(arguments: dict[str, Any], said: str) -> None:
    """By the rules that a manifest has, when the deploy is read, also with `-y`: pyinfra runs nothing of it then."""
    with pytest.raises(OperationError, match=said):
        s6_service(**({"service": "demo"} | arguments))


def test_a_list_of_services_is_read() -> None:
    """Each value is what s6 said; without supervision little is known, and that is said."""
    lines = [
        "now 1000", "service a", "reason stale", "state true true false 12 7", "death 1970-01-01 00:10:00.5 exitcode 3",
        "death 1970-01-01 00:10:01.5 signal SIGKILL", "needs b c", "needs d",
        "tells ready", "boot down", "defined aa", "kept -", "service b c",
        "state true false false 13 0", "defined bb", "kept bb",
        "service d", "reason bad", "defined -", "kept dd", "end",
    ]  # fmt: skip
    found = S6Services().process(lines)
    deaths = (Death(600, 3, None), Death(601, None, "SIGKILL"))
    assert found == {
        "a": S6Service("a", up=True, ready=False, pid=12, wanted_up=True, since=993, reason="", supervised=True,
                       enabled=False, deaths=deaths, needs=("b c", "d"), definition="aa", kept=None),
        "b c": S6Service("b c", up=True, ready=True, pid=13, wanted_up=False, since=1000, reason="",
                         supervised=True, enabled=True, deaths=(), needs=(), definition="bb", kept="bb"),
        "d": S6Service("d", up=False, ready=False, pid=None, wanted_up=False, since=None, reason="bad",
                       supervised=False, enabled=True, deaths=(), needs=(), definition=None, kept="dd"),
    }  # fmt: skip
    assert S6Services.default() is None
    assert found["a"].to_json()["deaths"][1] == {"at": 601, "exit_code": None, "signal": "SIGKILL"}


@pytest.mark.parametrize(
    "lines", [["now 1"], ["now 1", "service a", "defined -"], ["now 1", "state x", "end"], ["end"]]
)
def test_half_a_list_is_none(lines: list[str]) -> None:
    """Noise, and an answer that was cut off, is refused and not read as far as it goes."""
    with pytest.raises(FactProcessError):
        S6Services().process(lines)


@dataclass(frozen=True)
class Operator:
    """Somebody with pyinfra and one real machine."""

    rig: Rig
    folder: Path

    def run(self, *flags: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
        """The operation by the pyinfra program, from a deploy file."""
        deploy = self.folder / "deploy.py"
        deploy.write_text(
            f"from pyinfra_overlaymig.operations import s6_service\ns6_service(name='it', **{arguments!r})\n"
        )
        return subprocess.run(
            [Path(sys.executable).with_name("pyinfra"), "-y", *flags, "--limit", self.rig.name, "inventories/lab.py",
             deploy],
            cwd=TOP, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def changes(self, **arguments: Any) -> None:
        """It works and changes something, and then there is nothing left to change."""
        done = self.run(**arguments)
        assert done.returncode == 0, done.stderr
        assert "No changes" not in done.stderr
        places = {name: arguments[name] for name in ("scandir", "sourcedir") if name in arguments}
        commands, host = commands_of(self.services(**places), **arguments)
        assert (commands, bool(host.noop_description)) == ([], True)

    def changes_nothing(self, **arguments: Any) -> None:
        done = self.run(**arguments)
        assert done.returncode == 0, done.stderr
        assert "[lab-1] No changes" in done.stderr

    def services(self, **places: str) -> dict[str, S6Service]:
        command = S6Services().command(**places).get_raw_value()
        found = S6Services().process(self.rig.sh(command).splitlines())
        assert found is not None
        return found

    def service(self, name: str, **places: str) -> S6Service:
        return self.services(**places)[name]

    def pid(self, name: str) -> int:
        pid = self.service(name).pid
        assert pid
        return pid

    def waits_for(self, script: str, otherwise: str = "false") -> None:
        """Until ``script`` succeeds; ``otherwise`` shows why it does not."""
        tries = f"tries=$((tries + 1)); [ $tries -lt 100 ] || {{ {otherwise}; exit 1; }}"
        self.rig.sh(f"tries=0; until {script}; do {tries}; sleep 0.1; done")


@pytest.fixture(scope="module")
def operator(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(rig, tmp_path_factory.mktemp("deploys"))


SERVER: dict[str, Any] = {
    "service": "server",
    "run": 'echo "$GREETING as $(id -un)"; : >/run/server/up; exec sleep 4848',
    "prepare": "mkdir -p /run/server; chown nobody /run/server",
    "finish": 'echo "ended: $1 $2"; rm -f /run/server/up',
    "user": "nobody",
    "environment": {"GREETING": 'it\'s "so"', "EMPTY": ""},
    "check": "test -e /run/server/up",
    "timeout_kill": 5000,
    "max_death_tally": 5,
    "timeout": 20,
}


@pytest.fixture
def server(operator: Operator) -> Operator:
    """A machine on which the service above is ready."""
    done = operator.run(**SERVER, enabled=True)
    assert done.returncode == 0, done.stderr
    return operator


def test_a_service_is_defined_and_ready(operator: Operator) -> None:
    """It comes up as its user, with its environment, its logger and its limits; the same again changes nothing."""
    operator.changes(**SERVER)
    found = operator.service("server")
    assert found.up and found.ready and found.enabled and found.wanted_up and found.deaths == ()  # noqa: PT018 - one state
    assert found.definition == found.kept != None  # noqa: E711 - both at once
    said = operator.rig.sh("cat /data/state/var/log/server/current; cat /proc/$(pgrep -fx 'sleep 4848')/status")
    assert 'it\'s "so" as nobody' in said
    assert "Uid:\t65534" in said
    modes = operator.rig.sh("cd /run/service/server; stat -c '%a %n' env/* run; cat max-death-tally timeout-kill")
    assert modes.split() == ["600", "env/EMPTY", "600", "env/GREETING", "755", "run", "5", "5000"]


def test_a_changed_definition_restarts_and_nothing_else_does(server: Operator) -> None:
    """The process is another one after a change of any file, and the same after a change of its start at boot."""
    first = server.pid("server")
    server.changes(**SERVER, enabled=False)
    assert not server.service("server").enabled
    assert server.pid("server") == first
    changed = SERVER | {"environment": {"GREETING": "other"}}
    server.changes(**changed)
    assert server.pid("server") != first
    assert not server.service("server").enabled
    assert server.rig.sh("tail -n 1 /data/state/var/log/server/current").endswith(" other as nobody\n")
    assert server.rig.sh("pgrep -c -fx 'sleep 4848'") == "1\n"


def test_what_was_edited_by_hand_is_put_right(server: Operator) -> None:
    """A hand that changed, added or removed a file, or a mode, shows in the digest, here and in what is kept."""
    found = server.service("server")
    assert found.definition
    seen = {found.definition}
    for edit in ("echo : >>run", "echo 9 >timeout-finish", "rm finish", "chmod -x main", "ln -s x y"):
        server.rig.sh(f"cd /run/service/server; {edit}")
        digest = server.service("server").definition
        assert digest not in seen
        seen.add(digest or "")
    server.changes(**SERVER)
    server.rig.sh("rm /etc/s6/services/server/run")
    assert server.service("server").kept is None
    server.changes(**SERVER)


def test_a_killed_service_is_back_and_ready(server: Operator) -> None:
    """`kill -9` of the process: another one is ready, and s6 remembers how the first one ended."""
    before = server.pid("server")
    server.rig.sh(f"kill -9 {before}")
    server.waits_for(f'[ "$(s6-svstat -o pid,ready /run/service/server)" != "{before} true" ]')
    server.waits_for("s6-svstat -o ready /run/service/server | grep -q true")
    found = server.service("server")
    assert found.pid != before
    assert found.deaths[-1].signal == "SIGKILL"
    assert abs(found.deaths[-1].at - time.time()) < 30
    server.changes_nothing(**SERVER)


@pytest.mark.parametrize("part", ["server", "server/log"])
def test_a_killed_supervisor_is_back_with_its_service(server: Operator, part: str) -> None:
    """`kill -9` of s6-supervise, though the service is not enabled at boot: back, ready, and once."""
    server.changes(**SERVER, enabled=False)
    before = server.rig.sh(f"s6-svstat -o pid /run/service/{part}").strip()
    server.rig.sh(f"kill -9 $(pgrep -fx 's6-supervise {part}')")
    server.waits_for(f"! kill -0 {before} 2>/dev/null")
    server.waits_for(f"s6-svstat -o up /run/service/{part} | grep -q true")
    server.waits_for("s6-svstat -o ready /run/service/server | grep -q true")
    # Up is what has a pid: a moment later it is the program.
    server.waits_for("pgrep -f '^s6-log .*/server$' >/dev/null")
    assert server.rig.sh("pgrep -c -fx 'sleep 4848'; pgrep -c -f '^s6-log .*/server$'") == "1\n1\n"
    server.changes_nothing(**SERVER)
    server.rig.sh("s6-svc -wR -T 10000 -ru /run/service/server")
    assert server.rig.sh("tail -n 1 /data/state/var/log/server/current").endswith("as nobody\n")


def test_a_service_is_stopped_started_restarted_and_reloaded(server: Operator) -> None:
    """Each does what it says, waits for it, and leaves one alone that does not run."""
    run = "trap 'echo reloaded' HUP; trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    assert server.run(service="talks", run=run).returncode == 0
    server.changes(service="talks", running=False)
    assert "No changes" in server.run(service="talks", running=False, restarted=True, reloaded=True).stderr
    assert server.service("talks").deaths[-1].exit_code == 0
    server.changes(service="talks")
    before = server.pid("talks")
    assert "service talks: gets a signal" in server.run(service="talks", reloaded=True).stderr
    log = "/data/state/var/log/talks/current"
    server.waits_for(f"grep -q reloaded {log}", f"cat {log}; date; s6-svstat /run/service/talks; ps axf >&2")
    assert server.pid("talks") == before
    assert server.run(service="talks", restarted=True).returncode == 0
    assert server.pid("talks") != before


def test_a_service_that_never_gets_ready_fails_in_time_with_its_output(operator: Operator) -> None:
    """Within its own limit, the end of its log before the operator; the next run fails again."""
    hangs = {"service": "hangs", "run": "echo waiting for godot; exec sleep 5151", "check": "false", "timeout": 3}
    for _ in range(2):
        done = operator.run(**hangs)
        assert done.returncode != 0
        assert "service hangs is not ready within 3 s" in done.stderr
        assert "waiting for godot" in done.stderr


def test_a_service_waits_for_what_it_needs(server: Operator) -> None:
    """It does not start before that is ready, and says what it waits for."""
    server.rig.sh("s6-svc -wD -d /run/service/server")
    waits = {"service": "waits", "run": "echo >&3; exec sleep 5959", "needs": ["server"], "notification_fd": 3}
    done = server.run(**waits, timeout=3)
    assert "waits: waiting for server" in done.stderr
    assert server.rig.run("pgrep", "-fx", "sleep 5959").code == 1
    server.changes(service="server")
    server.changes(**waits)
    server.rig.sh("s6-svc -wD -d /run/service/server")
    done = server.run(**waits, restarted=True, timeout=3)
    assert "waits: waiting for server" in done.stderr
    assert server.rig.run("pgrep", "-fx", "sleep 5959").code == 1
    server.changes(service="server")
    server.waits_for("pgrep -fx 'sleep 5959' >/dev/null")
    server.changes(service="waits", present=False)


def test_what_needs_a_service_stops_before_it(server: Operator) -> None:
    """And starts again once it is ready, directly or not; what was down stays down."""
    server.changes(service="second", run="exec sleep 6161", needs=["server"])
    server.changes(service="third", run="exec sleep 6262", needs=["second"])
    server.changes(service="rests", run="exec sleep 6363", needs=["server"], running=False)
    before = [server.pid(name) for name in ("server", "second", "third")]
    done = server.run(service="server", restarted=True)
    assert done.returncode == 0, done.stderr
    assert "third, which needs it, stops, second, which needs it, stops, restarts, second starts again" in done.stderr
    services = [server.service(name) for name in ("server", "second", "third")]
    assert all(one.up and one.pid not in before for one in services)
    ended = [one.deaths[-1].at for one in services]
    assert ended == sorted(ended, reverse=True)
    assert not server.service("rests").up
    server.changes(service="server", running=False)
    assert not any(server.service(name).wanted_up for name in ("second", "third"))
    for name in ("third", "second", "rests"):
        server.changes(service=name, present=False)


def test_a_service_that_dies_fails_at_once_with_its_output(operator: Operator) -> None:
    """It is not waited for to the end of its time, which would be long after that of this test; how it died is said."""
    done = operator.run(service="dies", run="echo no config found; exit 3", timeout=6000)
    assert done.returncode != 0
    assert "service dies died three times while it started: exitcode 3" in done.stderr
    assert "no config found" in done.stderr
    gives_up = operator.run(service="dies", run="echo; exit 4", finish="exit 125", log=False, timeout=60)
    assert "service dies has given up: exitcode 4" in gives_up.stderr
    assert "see the output of s6-svscan" in gives_up.stderr


def test_what_fails_is_as_it_was_before(operator: Operator) -> None:
    """Nothing is left that dies and starts for ever, now and at every boot: a new service is not defined any more, a
    changed one is what it was, one that was down is down. Three deaths are three, however fast they come.
    """
    look = "s6-svstat -o up /run/service/fails 2>/dev/null || echo none; ls -A /etc/s6/services /run/services"
    look = f"{look} | grep -c fails || :"
    fails = {"service": "fails", "run": "printf 'h\u00e9llo\\r\\033[31mred\\n'; exit 3"}
    begun = time.monotonic()
    done = operator.run(**fails, timeout=60)
    assert time.monotonic() - begun < 30
    assert "died three times while it started: exitcode 3" in done.stderr
    assert "it is not defined any more" in done.stderr
    assert "    ?[31mred" in done.stderr
    assert "  h\u00e9llo" in operator.run(service="fails", run="echo h\u00e9llo", finish="exit 125").stderr
    assert "\033[31mred" not in done.stderr
    assert operator.rig.sh(look) == "none\n0\n"
    died = operator.rig.sh("grep -c red /data/state/var/log/fails/current")
    assert int(died) <= 5

    works = {"service": "fails", "run": "test ! -e /tmp/broken || exit 4; exec sleep 7171"}
    for running in (True, False):
        assert operator.run(**works, running=running).returncode == 0
        before = operator.service("fails")
        assert "it has the definition of before again" in operator.run(**fails, finish="exit 125").stderr
        after = operator.service("fails")
        assert (after.definition, after.kept, after.enabled) == (before.definition, before.kept, before.enabled)
        assert (after.up, after.wanted_up) == (running, running)
        assert operator.rig.sh("ls -A /etc/s6/services /run/services /run/service | grep -c '^[.]fails' || :") == "0\n"
    operator.rig.sh(": >/tmp/broken")
    assert "it is down again" in operator.run(service="fails").stderr
    assert operator.rig.sh("rm /tmp/broken; s6-svstat -o up,wantedup /run/service/fails") == "false false\n"
    assert operator.run(service="fails", present=False).returncode == 0
    assert operator.rig.sh(look) == "none\n0\n"


def test_a_service_that_does_not_stop_is_named(operator: Operator) -> None:
    """Nothing takes its place while it runs; when it is gone, the next run goes on."""
    deaf = {"service": "deaf", "run": "trap '' TERM; echo deaf; exec sleep 5252", "timeout": 4}
    assert operator.run(**deaf).returncode == 0
    pid = operator.pid("deaf")
    done = operator.run(**deaf | {"run": "echo hears; exec sleep 5252"})
    assert "service deaf did not stop within 4 s" in done.stderr
    operator.rig.sh(f"kill -9 {pid}")
    operator.changes(**deaf | {"run": "echo hears; exec sleep 5252"})


def test_a_removed_service_leaves_nothing_but_its_log(server: Operator) -> None:
    """Process, logger, supervisors and directories are gone."""
    assert server.rig.sh("pgrep -fc '^(sleep 4848|s6-supervise server|s6-log .*/server$)'") == "4\n"
    server.changes(service="server", present=False)
    left = server.rig.sh(
        "pgrep -fa '^(sleep 4848|s6-supervise server|s6-log .*/server$)' || :;"
        "ls -A /run/service /run/services /etc/s6/services | grep server || :; ls /data/state/var/log/server"
    )
    assert left == "current\nlock\nstate\n"


def test_a_restart_of_the_machine_brings_what_is_enabled(server: Operator) -> None:
    """A boot makes services from what is kept: enabled ones run, others are there and down, removed ones are not."""
    server.changes(service="off", run="exec sleep 5353", running=False, enabled=False)
    server.changes(service="stopped", run="exec sleep 5454", running=False)
    for arguments in ({"run": "exec sleep 5555", "running": None}, {"present": False}):
        assert server.run(service="gone", **arguments).returncode == 0
    server.rig.sh("cp -a /etc/s6/services/stopped /etc/s6/services/.half.new")
    lab.restart(server.rig.lab, server.rig.name)
    server.waits_for("s6-svstat -o ready /run/service/server | grep -q true")
    server.waits_for("s6-svstat -o up /run/service/stopped | grep -q true")
    assert not server.service("off").up
    assert {"server", "off", "stopped", "sshd"} <= (there := set(server.rig.sh("ls /run/service").split()))
    assert "gone" not in there
    assert server.rig.sh("rm -r /etc/s6/services/.half.new; ls -A /run/service /run/services | grep half || :") == ""
    server.changes_nothing(**SERVER)
    server.changes(service="off")


def test_another_scan_directory_of_plain_directories(operator: Operator) -> None:
    """Any s6-svscan will do, without a copy for the boot; a directory in the place of a link is replaced."""
    operator.rig.sh(
        """
        mkdir -p '/run/o ther/odd'
        printf '#!/bin/sh\\nexec sleep 5656\\n' >'/run/o ther/odd/run'
        chmod 755 '/run/o ther/odd/run'
        setsid s6-svscan '/run/o ther' </dev/null >/dev/null 2>&1 &
        """
    )
    there = {"scandir": "/run/o ther", "sourcedir": "", "livedir": "/run/o ther.d"}
    operator.waits_for("s6-svok '/run/o ther/odd'")
    odd = {"service": "odd", "run": "exec sleep 5757", "log": "/var/log/o d", **there}
    assert operator.service("odd", scandir="/run/o ther", sourcedir="").kept is None
    operator.changes(service="odd", running=False, **there)
    operator.changes(**odd)
    assert operator.rig.sh("pgrep -fc '^sleep 5[67]'; readlink '/run/o ther/odd'") == "1\n/run/o ther.d/odd\n"
    operator.changes(**odd, enabled=False)
    assert operator.rig.sh("ls '/var/log/o d/current' '/run/o ther.d/odd/down' | wc -l") == "2\n"
    operator.changes(**odd, running=False, enabled=True)
    operator.changes(service="odd", present=False, **there)
    assert operator.rig.sh("pgrep -f '^(sleep 5[67]|s6-supervise odd)' || ls -A '/run/o ther.d'") == ""
    operator.rig.sh("s6-svscanctl -t '/run/o ther'")
    operator.waits_for("! pgrep -f '^s6-svscan /run/o ther'")
    done = operator.run(**odd)
    assert "no s6-svscan runs on /run/o ther" in done.stderr


def test_whenever_it_is_killed_the_next_run_goes_on(server: Operator) -> None:
    """Killed on the machine after 20, 40, … ms: the machine converges, and nothing half-made is left on it."""
    for number in range(1, 25):
        wanted = SERVER | {"environment": {"GREETING": f"number {number % 2}"}}
        (command,), _ = commands_of(None, **wanted)
        text = command.get_raw_value()
        stdin = b"".join(one.encode() for one in command.connector_arguments["_stdin"])
        server.rig.run("timeout", "-s", "KILL", f"{number / 50}", "sh", "-c", text, stdin=stdin)
        if number % 3 == 0:
            done = server.rig.run("sh", "-c", text, stdin=stdin)
            assert done.code == 0, done.text
            found = server.service("server")
            assert found.ready
            assert found.definition == found.kept == definition_of(wanted)
    assert server.rig.sh("pgrep -c -fx 'sleep 4848'; ls -A /etc/s6/services /run/services | grep '^[.]' || :") == "1\n"


def definition_of(wanted: dict[str, Any]) -> str:
    own = {key: value for key, value in wanted.items() if key not in ("service", "timeout", "environment")}
    service = Service(name="server", environment=tuple(wanted["environment"].items()), **own)
    return definition(render_alone(service, f"{LOGS}/server"))


def test_a_service_of_a_migration_is_its_own(operator: Operator, rig: Rig) -> None:
    """It is started and stopped like any other; to change or to remove it is refused, with its migration's name."""
    id = "20240601-001_brings"
    assert rig.apply(id, "mkdir /opt/x; echo x >/opt/x/x", services={"mine": {"run": "exec sleep 5858"}}).code == 0
    operator.changes_nothing(service="mine")
    operator.changes(service="mine", running=False)
    assert operator.run(service="mine").returncode == 0
    for arguments in ({"run": "exec sleep 1"}, {"present": False}):
        done = operator.run(service="mine", **arguments)
        assert f"service mine belongs to the migration {id}" in done.stderr
    assert operator.service("mine").ready
    assert rig.status().service("mine") is not None
