"""`overlaymig graph` by the real program, and with the real dot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BASE, DB, CACHE, WORKER, OTHER = (
    f"20240101-00{number}_{name}" for number, name in enumerate(("tools", "db", "cache", "worker", "other_db"), 1)
)
FOLDER = {
    BASE: 'description: |\n  Tools, "quoted" \\ twice\n  over two lines\n',
    DB: f"description: The database\ndepends: [{BASE}]\nservices: {{db: {{run: x}}}}\n",
    CACHE: "description: The cache\nservices: {cache: {run: x}}\n",
    WORKER: f"description: Works\ndepends: [{DB}, {CACHE}]\n"
    "services: {worker: {run: x, needs: [db, cache]}, web: {run: x, needs: [worker]}}\n",
}
TEXT = f"""\
{BASE}   Tools, "quoted" \\ twice over two lines
{DB}      The database
    depends on {BASE}
    service db
{CACHE}   The cache
    service cache
{WORKER}  Works
    depends on {DB}, {CACHE}
    service worker, which needs cache, db
    service web, which needs worker

services start in this order, those of one line together:
    1. cache, db
    2. worker
    3. web
"""


def make(top: Path, folder: dict[str, str]) -> Path:
    for id, manifest in folder.items():
        (top / id).mkdir(parents=True)
        (top / id / "migration.yaml").write_text(manifest)
        (top / id / "install.sh").write_text("#!/bin/sh\n:\n")
    return top


def graph(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [Path(sys.executable).with_name("overlaymig"), "graph", *arguments],
        capture_output=True, check=False, env=os.environ | environment, timeout=60,
    )  # fmt: skip


def printed(*arguments: str | Path) -> str:
    done = graph(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_text_is_for_people(tmp_path: Path) -> None:
    """Every migration with what it needs and brings, and the services in the order they start."""
    assert printed(make(tmp_path / "m", FOLDER)) == TEXT


def test_only_what_is_asked_for_and_below(tmp_path: Path) -> None:
    """Ids choose: they and all they depend on are shown."""
    said = printed(make(tmp_path / "m", FOLDER), DB)
    assert [line.split()[0] for line in said.splitlines() if line.startswith("2024")] == [BASE, DB]


def test_json_is_for_programs(tmp_path: Path) -> None:
    """The same as a document."""
    found = json.loads(printed(make(tmp_path / "m", FOLDER), "--json"))
    assert found["start"] == [["cache", "db"], ["worker"], ["web"]]
    assert [one["id"] for one in found["migrations"]] == sorted(FOLDER)
    assert found["migrations"][3] == {
        "id": WORKER, "description": "Works", "depends": [DB, CACHE], "conflicts": [],
        "services": [{"name": "worker", "needs": ["cache", "db"]}, {"name": "web", "needs": ["worker"]}],
    }  # fmt: skip


def test_the_real_dot_draws_all_nodes_and_edges(tmp_path: Path) -> None:
    """What graphviz makes of it has every migration, service, dependency, need and conflict, and no other."""
    other = f"description: Another database\nconflicts: [{DB}]\nservices: {{db: {{run: x}}}}\n"
    folder = make(tmp_path / "m", FOLDER | {OTHER: other})
    drawn = printed(folder, "--format", "svg")
    titles = re.findall(r"<title>(.*?)</title>", drawn)
    edges = {title.replace("&#45;", "-") for title in titles if "&gt;" in title}
    assert edges == {
        f"{DB}-&gt;{BASE}", f"{WORKER}-&gt;{DB}", f"{WORKER}-&gt;{CACHE}", f"{OTHER}-&gt;{DB}",
        f"worker {WORKER}-&gt;db {DB}", f"worker {WORKER}-&gt;cache {CACHE}", f"web {WORKER}-&gt;worker {WORKER}",
    }  # fmt: skip
    nodes = {title.replace("&#45;", "-") for title in titles if "&gt;" not in title and "cluster" not in title}
    services = {f"db {DB}", f"cache {CACHE}", f"worker {WORKER}", f"web {WORKER}", f"db {OTHER}", "migrations"}
    assert nodes == {*FOLDER, OTHER, *services}
    assert "depends on which of those that conflict" in printed(folder)
    assert json.loads(printed(folder, "--json"))["start"] is None
    picture = tmp_path / "picture.png"
    assert printed(folder, "--format", "png", "-o", picture) == ""
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_dot_says_what_to_do(tmp_path: Path) -> None:
    """Where graphviz is missing, DOT is still there, and a picture is refused with the remedy."""
    folder = make(tmp_path / "m", FOLDER)
    done = graph(folder, "--format", "svg", PATH=str(tmp_path))
    assert done.returncode == 1
    assert b"install graphviz" in done.stderr
    assert graph(folder, "--format", "dot", PATH=str(tmp_path)).stdout.startswith(b"digraph")


@pytest.mark.parametrize(
    ("worker", "said", "hint"),
    [
        ("services:\n  worker: {run: x, needs: [db]}\n", ":3: service worker needs db", f"add {DB}"),
        ("services:\n  a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}\n", "in a circle: ", "out of `needs`"),
        (f"depends:\n  - {OTHER}\n", ":3: ", "known are"),
        (f"depends: [{CACHE}, {DB}]\nconflicts: [{BASE}]\n", f":3: {WORKER} conflicts with {BASE}", "leave one"),
    ],
)
def test_what_cannot_be_is_refused_with_file_line_and_remedy(tmp_path: Path, worker: str, said: str, hint: str) -> None:
    """Before any machine is asked, and with the exit code of an invalid migration."""
    done = graph(make(tmp_path / "m", FOLDER | {WORKER: f"description: x\n{worker}"}))
    assert done.returncode == 4
    assert not done.stdout
    text = done.stderr.decode()
    assert f"{WORKER}/migration.yaml:" in text
    assert said in text
    assert hint in text


def test_usage() -> None:
    """Help has examples; what excludes each other is refused; the default is the folder of this checkout."""
    assert "Examples:" in printed("--help")
    assert graph("--json", "--format", "dot").returncode == 100
    assert "20240206-001_add_postgresql" in printed()
    missing = graph("/nowhere")
    assert (missing.returncode, b"no such folder" in missing.stderr) == (4, True)
