"""`overlaymig diff`: what a migration, or a command under `capture`, changed on a machine, and who did it."""

from __future__ import annotations

import json

import click

from pyinfra_overlaymig.cli.asking import ask, capture


@click.command()
@click.argument("host")
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is recorded as JSON.")
@click.option("--sudo", is_flag=True, help="Ask as root by sudo, where ssh logs in as another user.")
def diff(host: str, id: str, as_json: bool, sudo: bool) -> None:
    """Show what migration (or capture) ID changed on HOST, and who did it: by package and directory.

    HOST is a machine of the lab, or whatever ssh takes.

    \b
    Examples:
      overlaymig diff lab-1 20240206-001_add_postgresql
      overlaymig diff root@db1.example.net 20240206-001_add_postgresql --json | jq '.unexplained'
      overlaymig diff --sudo admin@db1.example.net 20240206-001_add_postgresql
    """
    if as_json:
        click.echo(json.dumps(capture(host, id, sudo=sudo).to_json(), indent=2))
    else:
        click.echo(ask(host, "diff", id, sudo=sudo).decode(errors="replace"), nl=False)
