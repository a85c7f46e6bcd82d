"""How ssh reaches a machine with the lab's own key; it must read nothing of the operator's ~/.ssh."""

from __future__ import annotations

from pyinfra_overlaymig.lab.layout import Lab


def argv(lab: Lab, address: str) -> list[str]:
    """The argv that logs in at ``address`` as root; options, and then a command, may follow."""
    options = (
        f'UserKnownHostsFile="{lab.known_hosts}"',
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "LogLevel=ERROR",
    )
    # `-F none`: with a configuration named, ssh neither reads nor makes ~/.ssh.
    words = ["ssh", "-F", "none", "-i", str(lab.key)]
    return [*words, *(word for option in options for word in ("-o", option)), f"root@{address}"]
