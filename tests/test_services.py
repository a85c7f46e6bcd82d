from __future__ import annotations

import shlex
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyinfra_overlaymig.migration.folder import load_all
from pyinfra_overlaymig.migration.model import Migration, Service
from pyinfra_overlaymig.migration.services import render, render_alone
from tests.sandbox import run_in_sandbox

TOP = Path(__file__).parent.parent
ODD_STATE = '/srv/it\'s a "$(demo)"'
ODD_VALUE = 'it\'s "so" $HOME `id` \\n\nsecond line '
PLAIN = Service("plain", run="sleep 4343")
FULL = Service(
    "full",
    run='echo "env: $GREETING"; exec sleep 4242',
    prepare="mkdir -p /run/full",
    finish='echo "ended: $1 $2"',
    user="nobody",
    check="test -e /run/go",
    environment=(("GREETING", ODD_VALUE), ("EMPTY", "")),
    down_signal="SIGINT",
    timeout_kill=3000,
    max_death_tally=7,
    needs=("plain", "other"),
)
SHELL = Service("shell", run="sleep 4444\necho over")
TELLING = Service("telling", run="echo >&4; exec sleep 4545", notification_fd=4)

# Brings the directories in /sandbox/services under a supervisor, and waits until it runs.
SUPERVISE = r"""
wait_for() {
    tries=0
    until eval "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "never: $1"; cat /data/state/var/log/*/current; exit 1; }
        sleep 0.1
    done
}
said() { cut -d ' ' -f 4- "/data/state/var/log/$1/current"; }
mkdir -p /data/state /run/service
cp -a /sandbox/services /run/services
ln -s /run/services/* /run/service/
s6-svscan /run/service >/run/svscan.log 2>&1 &
for one in /run/service/*; do wait_for "s6-svok $one"; done
cd /run/service
"""


def migration(*services: Service, state: tuple[str, ...] = ()) -> Migration:
    return Migration(id="20240206-001_demo", folder=Path(), description="x", state=state, services=services)


def write(one: Migration, top: Path) -> Path:
    """The service directories of a migration, as its bundle would bring them."""
    for service in one.services:
        for file in render(one, service):
            path = top / service.name / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, "utf-8", newline="")
            path.chmod(0o755 if file.executable else 0o644)
    return top


def supervised(tmp_path: Path, one: Migration, script: str, before: str = "") -> list[str]:
    """What a script says on a machine where s6 supervises the services of a migration."""
    write(one, tmp_path / "shared/services")
    result = run_in_sandbox(f"{before}\n{SUPERVISE}\n{script}", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def files(service: Service, state: tuple[str, ...] = ()) -> dict[str, str]:
    return {file.path: file.text for file in render(migration(service, state=state), service)}


EVERY = [
    migration(PLAIN, FULL, SHELL, TELLING, state=("/srv/b", "/srv/a", ODD_STATE)),
    migration(PLAIN),
    *(one for one in load_all(TOP / "deploys/migrations") if one.services),
]


@pytest.mark.parametrize("one", EVERY, ids=["all", "least", *(one.id for one in EVERY[2:])])
def test_every_program_is_sound_sh(tmp_path: Path, one: Migration) -> None:
    """What is rendered passes dash and shellcheck, whatever it is made from."""
    programs = [path for path in write(one, tmp_path).rglob("*") if path.is_file() and path.stat().st_mode & 0o111]
    assert len(programs) >= 4 * len(one.services)
    for program in programs:
        assert program.read_text().startswith("#!/bin/sh\n")
        subprocess.run(["dash", "-n", program], check=True)
    # 2016: values with a dollar are quoted so as not to expand. 2094: the variable `group` is not the file `group`.
    command = ["shellcheck", "--shell=sh", "--exclude=SC2016,SC2094", *map(str, programs)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_what_a_directory_holds() -> None:
    """A service that asks for nothing has five programs, and tells when it begins; each setting adds its one file."""
    assert list(files(PLAIN)) == [
        "data/begins", "finish", "log/run", "main", "notification-fd", "pre-start", "run",
    ]  # fmt: skip
    assert list(files(FULL)) == [
        "check", "data/check", "data/needs", "down-signal", "env/EMPTY", "env/GREETING", "finish", "log/run", "main",
        "max-death-tally", "notification-fd", "pre-start", "prepare", "run", "timeout-finish",
        "timeout-kill",
    ]  # fmt: skip
    settings = ("notification-fd", "down-signal", "timeout-kill", "max-death-tally", "data/needs", "env/EMPTY")
    assert {key: files(FULL)[key] for key in settings} == {
        "notification-fd": "3\n", "down-signal": "SIGINT\n", "timeout-kill": "3000\n", "max-death-tally": "7\n",
        "data/needs": "other\nplain\n", "env/EMPTY": "\n",
    }  # fmt: skip
    assert files(TELLING)["notification-fd"] == "4\n"


def test_only_programs_are_executable() -> None:
    """s6 starts what is executable and reads the rest; what may be secret is root's alone."""
    modes = {file.path: file.mode for file in render(migration(FULL), FULL)}
    assert {path for path, mode in modes.items() if mode == 0o600} == {"env/EMPTY", "env/GREETING"}
    assert {path for path, mode in modes.items() if mode == 0o644} == {
        "data/needs", "down-signal", "max-death-tally", "notification-fd", "timeout-finish",
        "timeout-kill",
    }  # fmt: skip


def test_a_service_of_no_migration_touches_nothing_of_migrations() -> None:
    """It has no pre-start, and its log where it is told, or none."""
    alone = {file.path: file.text for file in render_alone(PLAIN, "/var/log/it's")}
    assert list(alone) == ["data/begins", "log/run", "main", "notification-fd", "run"]
    assert "pre-start" not in alone["run"]
    assert "/data" not in "".join(alone.values())
    assert """exec s6-log n5 s1000000 T '/var/log/it'"'"'s'\n""" in alone["log/run"]
    assert [file.path for file in render_alone(PLAIN, None)] == ["data/begins", "main", "notification-fd", "run"]


@pytest.mark.parametrize("killed", ["a process", "a shell", "a logger"])
def test_what_a_killed_supervisor_left_ends_before_its_successor(tmp_path: Path, killed: str) -> None:
    """s6-supervise killed by force: it is back, the service too, once, and nothing that was said is lost."""
    what = {"a process": "plain", "a shell": "shell", "a logger": "plain/log"}[killed]
    lines = supervised(
        tmp_path,
        migration(PLAIN, SHELL),
        f"""
        runs() {{ pgrep -fx 'sleep 4343|sleep 4444|s6-log .*/{what.partition("/")[0]}' | wc -l; }}
        wait_for '[ "$(runs)" = 3 ]'
        before=$(s6-svstat -o pid {what})
        kill -KILL "$(pgrep -fx 's6-supervise {what}')"
        wait_for '[ "$(s6-svstat -o pid {what})" != "$before" ]'
        wait_for '! kill -0 "$before"'
        wait_for '[ "$(runs)" = 3 ]'
        sleep 1
        s6-svstat -o up,wantedup {what}
        runs
        said {what.partition("/")[0]}
        """,
    )
    assert lines[:2] == ["true true", "3"]
    assert any("still runs, and ends first" in line for line in lines[2:]) is (killed != "a logger")


def test_the_order_of_state_does_not_matter() -> None:
    """The same migration renders the same bytes."""
    assert files(PLAIN, state=("/a", "/b")) == files(PLAIN, state=("/b", "/a"))


@pytest.mark.parametrize(
    ("run", "main"),
    [
        ("daemon --foreground", "exec daemon --foreground"),
        ("  daemon\n\n", "exec daemon"),
        ("daemon \\\n  --foreground", "exec daemon \\\n  --foreground"),
        ("daemon >/dev/null 2>&1", "exec daemon >/dev/null 2>&1"),
        ("daemon ';' '&&'", "daemon ';' '&&'"),
        ("exec daemon", "exec daemon"),
        ("cd /x && exec daemon", "cd /x && exec daemon"),
        ("if true; then exec daemon; fi", "if true; then exec daemon; fi"),
        ("one; two", "one; two"),
        ("one | two", "one | two"),
        ("PORT=1 daemon", "PORT=1 daemon"),
        ("one\ntwo", "one\ntwo"),
        ("daemon 'unclosed", "daemon 'unclosed"),
    ],
)
def test_a_single_command_becomes_the_process(run: str, main: str) -> None:
    """`exec` goes before one plain command and before nothing that it would cut short."""
    assert files(Service("x", run=run))["main"] == f"#!/bin/sh\n{main}\n"


@settings(max_examples=30)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_value_arrives_in_the_environment(value: str) -> None:
    """Whatever text a variable has, the program gets just that."""
    with tempfile.TemporaryDirectory() as directory:
        service = Service("x", run='printf %s "$VALUE"', environment=(("VALUE", value),))
        there = write(migration(service), Path(directory)) / "x"
        (there / "pre-start").write_text("#!/bin/sh\n")
        found = subprocess.run(["sh", "-c", "exec ./run 3>/dev/null"], cwd=there, capture_output=True, check=True)
        assert found.stdout == value.encode("utf-8")


def test_readiness_is_what_the_check_says(tmp_path: Path) -> None:
    """A service with a check is up at once, and ready only when the check succeeds."""
    lines = supervised(
        tmp_path,
        migration(replace(FULL, needs=())),
        """
        s6-svwait -u -t 5000 full
        sleep 1
        s6-svstat -o up,ready full
        : >/run/go
        s6-svwait -U -t 10000 full
        s6-svstat -o up,ready full
        """,
    )
    assert lines == ["true false", "true true"]


def test_a_check_that_hangs_is_one_at_a_time_and_ends_at_its_limit_and_with_its_service(tmp_path: Path) -> None:
    """With all that it started: what leaves its session, what is deaf, and what one that fails leaves."""
    hangs = Service("hangs", run="exec sleep 4646", check="setsid sh -c 'trap \"\" TERM; sleep 4747' & sleep 4748")
    fails = Service("fails", run="exec sleep 4848", check="setsid sleep 4849 & sleep 0.1; exit 1")
    lines = supervised(
        tmp_path,
        migration(hangs, fails),
        """
        count() { grep -lzx "$1" /proc/[0-9]*/cmdline 2>/dev/null | wc -l; }
        wait_for '[ "$(count "[4]748")" = 1 ]'
        most=0
        for _ in $(seq 70); do
            [ "$(count "[4]748")" -le 1 ] && [ "$(count "[4]747")" -le 2 ] && [ "$(count "[4]849")" -le 1 ] || most=1
            sleep 0.1
        done
        wait_for '[ "$(count "[4]748")" = 1 ]'
        s6-svc -wD -T 5000 -d hangs
        s6-svc -wD -T 5000 -d fails
        echo "$most $(count "[4]747") $(count "[4]748") $(count "[4]849")"
        """,
    )
    assert lines == ["0 0 0 0"]


def test_readiness_is_what_the_program_tells(tmp_path: Path) -> None:
    """A program that writes to its own descriptor is ready when it says so."""
    lines = supervised(tmp_path, migration(TELLING), "s6-svwait -U -t 5000 telling\ns6-svstat -o up,ready telling")
    assert lines == ["true true"]


def test_the_program_runs_as_its_user_with_its_environment(tmp_path: Path) -> None:
    """Root is dropped before the program starts; prepare ran before that, as root; values are literal."""
    service = Service(
        "who",
        run='echo "$(id -un) $(id -gn) $(pwd) $USER $LOGNAME $HOME"; printf "[%s]\\n" "$TEXT" "$EMPTY"; exec sleep 9',
        prepare="id -un >/run/prepared",
        user="nobody",
        environment=(("TEXT", ODD_VALUE), ("EMPTY", "")),
    )
    lines = supervised(
        tmp_path, migration(service), "wait_for 'said who | grep -qxF \"[]\"'\nsaid who\necho --\ncat /run/prepared"
    )
    first, *text, end, prepared = lines
    assert first == "nobody nogroup / nobody nobody /nonexistent"
    assert "\n".join(text) == f"[{ODD_VALUE}]\n[]"
    assert (end, prepared) == ("--", "root")


def test_state_is_bound_before_the_program_starts(tmp_path: Path) -> None:
    """A service writes its state to /data/state, keeps owner and mode of what was there, and is marked."""
    writer = Service(
        "writer",
        run="echo kept >/srv/demo/file; : >/run/demo/done; exec sleep 9",
        prepare="mkdir -m 1777 /run/demo",
        user="nobody",
    )
    lines = supervised(
        tmp_path,
        migration(writer, Service("other", run="exec sleep 9"), state=("/srv/demo", ODD_STATE)),
        f"""
        wait_for '[ -e /run/demo/done ] && [ -e /data/state/services/other/initialized ]'
        cat /data/state/srv/demo/file
        stat -c '%U %a' /data/state/srv/demo
        awk '$5 == "/srv/demo" {{ n++ }} END {{ print n }}' /proc/self/mountinfo
        mountpoint -q {shlex.quote(ODD_STATE)} && echo odd
        ls /data/state/services
        s6-svc -r -wr -T 5000 other
        s6-svc -r -wr -T 5000 writer
        awk '$5 == "/srv/demo" {{ n++ }} END {{ print n }}' /proc/self/mountinfo
        """,
        before="mkdir -p /srv/demo && chown nobody /srv/demo && chmod 2750 /srv/demo",
    )
    assert lines == ["kept", "nobody 2750", "1", "odd", "other", "writer", "1"]


def test_what_a_shell_left_running_ends_with_it(tmp_path: Path) -> None:
    """Where the service stays a shell its children go with it; a single command is the process itself."""
    lines = supervised(
        tmp_path,
        migration(SHELL, PLAIN),
        """
        wait_for 'pgrep -fx "sleep 4444" && pgrep -fx "sleep 4343"'
        [ "$(s6-svstat -o pid plain)" = "$(pgrep -fx 'sleep 4343')" ] && echo 'is the process'
        s6-svc -d -wD -T 5000 shell
        wait_for '! pgrep -fx "sleep 4444"'
        echo swept
        """,
    )
    assert lines == ["is the process", "swept"]


def test_a_service_ends_by_its_signal_and_is_finished(tmp_path: Path) -> None:
    """down_signal is what s6 sends, and finish hears how it ended."""
    service = Service("ends", run="sleep 4646", finish='echo "ended: $1 $2" >/run/ended', down_signal="SIGUSR1")
    lines = supervised(
        tmp_path,
        migration(service),
        "wait_for 'pgrep -fx \"sleep 4646\"'\ns6-svc -d -wD -T 5000 ends\ncat /run/ended",
    )
    assert lines == ["ended: 256 10"]


def test_what_does_not_obey_is_killed(tmp_path: Path) -> None:
    """After timeout_kill milliseconds a service that ignores its signal is gone."""
    service = Service("deaf", run="trap '' TERM; : >/run/deaf; exec sleep 4747", timeout_kill=300)
    lines = supervised(
        tmp_path,
        migration(service),
        "wait_for '[ -e /run/deaf ]'\ns6-svc -d -wD -T 5000 deaf\ns6-svstat -o up,signal deaf",
    )
    assert lines == ["false SIGKILL"]


def test_a_failed_preparation_is_named_and_nothing_started(tmp_path: Path) -> None:
    """Where prepare fails the program does not run, and the log says which step it was."""
    service = Service("broken", run="echo started", prepare="echo reason >&2\nexit 7")
    lines = supervised(
        tmp_path, migration(service), "wait_for 'said broken | grep -q failed'\ns6-svc -d broken\nsaid broken"
    )
    assert lines[:2] == ["reason", "broken: ./prepare failed with exit 7"]
    assert "started" not in lines


def test_a_service_waits_for_its_needs(tmp_path: Path) -> None:
    """What is needed is ready before the program starts, whichever was started first."""
    first = Service("first", run="exec sleep 99", check="test -e /run/go")
    second = Service("second", run="test -e /run/go && exec sleep 99; touch /run/early", needs=("first",))
    lines = supervised(
        tmp_path,
        migration(first, second),
        """
        sleep 2
        : >/run/go
        s6-svwait -U -t 10000 first
        sleep 1
        test ! -e /run/early
        ps ax -o args | grep -c '^sleep 99'
        """,
    )
    assert lines == ["2"]


def test_a_pre_start_that_fails_keeps_the_service_down(tmp_path: Path) -> None:
    """It is not tried over and over; the reason is beside it, and once it is mended `s6-svc -u` starts it."""
    service = Service("kept", run="exec sleep 99")
    lines = supervised(
        tmp_path,
        migration(service, state=("/srv/file/below",)),
        """
        for i in $(seq 100); do [ ! -f kept/reason ] || break; sleep 0.1; done
        sleep 2
        s6-svstat -o up,wantedup kept
        cat kept/reason
        rm -f /srv/file
        s6-svc -u kept
        for i in $(seq 50); do [ -f kept/reason ] || break; sleep 0.1; done
        test ! -e kept/reason
        s6-svstat -o up kept
        """,
        before="mkdir -p /srv; : >/srv/file",
    )
    assert lines[0].startswith("false ")
    assert "/srv/file" in lines[1]
    assert lines[2] == "true"
