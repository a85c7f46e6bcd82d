"""A lab's bridge, addresses and way out; it must touch no interface or rule but the lab's own.

What all labs of the host share is in /run/overlaymig, under one lock: `forward` holds the value of
ip_forward that the first lab found, `netns` whether /run/netns was a mount, `users/<tag>` a lab
that needs both. The last to leave restores them.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.layout import Lab, Place
from pyinfra_overlaymig.lab.locking import locked, write_file
from pyinfra_overlaymig.lab.process import end_strays
from pyinfra_overlaymig.lab.run import run, succeeds

_SHARED = Path("/run/overlaymig")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_NAMESPACES = Path("/run/netns")
_FIREWALL = ("ip", "filter", "FORWARD")
"""The chain that iptables, and so Docker and ufw, filter forwarded packets in."""
_WIDE = 8
_FIRST = 10
"""lab-1 has host number 11 of the subnet; the bridge has 1."""


def subnet(lab: Lab) -> ipaddress.IPv4Network:
    """The /24 that `raise_bridge` chose for this lab."""
    try:
        return ipaddress.IPv4Network(lab.subnet.read_text().strip())
    except FileNotFoundError:
        raise OverlaymigError(f"there is no lab in {lab.directory}", hint="start one: overlaymig lab up -n 3") from None


def address(place: Place) -> str:
    """The machine's IPv4 address."""
    return str(subnet(place.lab)[_FIRST + place.index])


def raise_bridge(lab: Lab) -> None:
    """Make the lab's bridge, masquerading and forwarding; what is there already is kept."""
    if not (Path("/sys/class/net") / lab.bridge).exists() or not lab.subnet.exists():
        drop_bridge(lab)
        write_file(lab.subnet, f"{_free_subnet(lab)}\n")
        _ip(f"link add {lab.bridge} mtu {_mtu()} address {lab.mac} type bridge")
    # Also for a bridge that a killed `up` left without its address.
    _ip(f"addr replace {subnet(lab)[1]}/24 dev {lab.bridge}", f"link set {lab.bridge} up")
    _forward(lab)
    run(["nft", "-f", "-"], stdin=_ruleset(lab))
    _pass_firewall(lab)


def drop_bridge(lab: Lab) -> None:
    """Remove every interface, namespace and rule of the lab, also of forgotten machines."""
    for namespace in _our_namespaces(lab):
        _drop_namespace(namespace)
    for path in sorted(Path("/sys/class/net").glob(f"{lab.bridge}*"), reverse=True):
        succeeds(["ip", "link", "del", path.name])
    succeeds(["nft", "delete", "table", "ip", lab.nft_table])
    _delete_rules(_firewall_rules(lab))
    _stop_forward(lab)


def settings(place: Place) -> dict[str, str]:
    """What a machine has to be told that configures its network itself."""
    own, prefix = subnet(place.lab), subnet(place.lab).prefixlen
    return {"address": f"{address(place)}/{prefix}", "gateway": str(own[1]), "mtu": str(_mtu())}


def plug_tap(place: Place) -> None:
    """Give a virtual machine that does not run its port on the bridge."""
    unplug(place)
    _ip(
        f"tuntap add dev {place.interface} mode tap",
        f"link set {place.interface} mtu {_mtu()} master {place.lab.bridge} up",
    )


def plug_in(place: Place) -> None:
    """Give a machine that does not run a network namespace that is complete before it boots."""
    unplug(place)
    run(["ip", "netns", "add", place.namespace])
    _ip(
        f"link add {place.interface} mtu {_mtu()} type veth"
        f" peer name eth0 mtu {_mtu()} address {place.mac} netns {place.namespace}",
        f"link set {place.interface} master {place.lab.bridge} up",
    )
    _ip(
        "link set lo up",
        f"addr add {address(place)}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {subnet(place.lab)[1]}",
        namespace=place.namespace,
    )


def unplug(place: Place) -> None:
    """Remove a machine's namespace and interface, and end whatever still runs in it."""
    _drop_namespace(place.namespace)
    # The kernel removes the pair some time after the namespace; a restart cannot wait for that.
    if (Path("/sys/class/net") / place.interface).exists():
        succeeds(["ip", "link", "del", place.interface])


def _drop_namespace(name: str) -> None:
    path = _NAMESPACES / name
    if _mounted(path):
        end_strays([int(pid) for pid in run(["ip", "netns", "pids", name]).split()])
        run(["ip", "netns", "del", name])
    # Without a mount it is what a killed `ip netns add` left, which `ip netns del` refuses.
    path.unlink(missing_ok=True)


def _mounted(path: Path) -> bool:
    """Also true for a mount of the same file system, which `os.path.ismount` does not see."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ")[4] == str(path) for line in mounts)


def _our_namespaces(lab: Lab) -> list[str]:
    return [path.name for path in _NAMESPACES.glob(f"{lab.bridge}-*")]


def _ip(*commands: str, namespace: str | None = None) -> None:
    inside = ["-n", namespace] if namespace else []
    run(["ip", *inside, "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))


def _free_subnet(lab: Lab) -> ipaddress.IPv4Network:
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]))
    routed = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    # A route as wide as 10.0.0.0/8 is some VPN's: no /24 is outside it, and ours is more specific.
    taken = [network for network in routed if network.prefixlen > _WIDE]
    first = int.from_bytes(lab.digest[4:6])
    for step in range(0, 0x10000, 257):
        network = ipaddress.IPv4Network((0x0A000000 | ((first + step) % 0x10000 << 8), 24))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise OverlaymigError(
        f"this host routes {len(taken)} networks and none of 256 candidates in 10.0.0.0/8 is free",
        hint="set OVERLAYMIG_LAB_DIR to another directory: it decides the candidates",
    )


def _mtu() -> int:
    """That of the way out: a larger one inside would depend on path MTU discovery."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "default"]))
    if not routes:
        return 1500
    return int((Path("/sys/class/net") / routes[0]["dev"] / "mtu").read_text())


def _ruleset(lab: Lab) -> str:
    # Declared and deleted first, so that loading it again replaces it.
    return f"""\
table ip {lab.nft_table}
delete table ip {lab.nft_table}
table ip {lab.nft_table} {{
    chain out {{
        type nat hook postrouting priority srcnat;
        ip saddr {subnet(lab)} ip daddr != {subnet(lab)} masquerade
    }}
}}
"""


def _pass_firewall(lab: Lab) -> None:
    """Let the lab through a firewall that drops what it forwards, as Docker's and ufw's do.

    No chain of our own can: whatever it accepts, theirs still drops.
    """
    ends = ("iifname", "oifname")
    rules = _firewall_rules(lab)
    if len(rules) == len(ends) or not succeeds(["nft", "list", "chain", *_FIREWALL]):
        return
    _delete_rules(rules)
    for end in ends:
        run(["nft", "insert", "rule", *_FIREWALL, end, lab.bridge, "accept"])


def _delete_rules(handles: list[str]) -> None:
    for handle in handles:
        succeeds(["nft", "delete", "rule", *_FIREWALL, "handle", handle])


def _firewall_rules(lab: Lab) -> list[str]:
    """The handles of the lab's rules in the host's own firewall, if it has one."""
    if not succeeds(["nft", "list", "chain", *_FIREWALL]):
        return []
    listed = run(["nft", "-a", "list", "chain", *_FIREWALL]).splitlines()
    return [line.split()[-1] for line in listed if f'"{lab.bridge}"' in line]


def _forward(lab: Lab) -> None:
    with locked(_SHARED, report=_silent, busy=""):
        (_SHARED / "users").mkdir(exist_ok=True)
        if not (_SHARED / "forward").exists():
            write_file(_SHARED / "netns", "mounted\n" if _mounted(_NAMESPACES) else "plain\n")
            write_file(_SHARED / "forward", _FORWARD.read_text())
        write_file(_SHARED / "users" / lab.tag, f"{lab.directory}\n")
        _FORWARD.write_text("1\n")


def _stop_forward(lab: Lab) -> None:
    if not _SHARED.exists():
        return
    with locked(_SHARED, report=_silent, busy=""):
        for user in (_SHARED / "users").glob("*"):
            if user.name == lab.tag or not Path(user.read_text().strip()).is_dir():
                user.unlink()
        if any((_SHARED / "users").glob("*")) or not (_SHARED / "forward").exists():
            return
        _FORWARD.write_text((_SHARED / "forward").read_text())
        _leave_namespaces()
        run(["rm", "-rf", "--", _SHARED])


def _leave_namespaces() -> None:
    """Undo the mount that the first `ip netns add` leaves behind, if it was one of ours."""
    found = _SHARED / "netns"
    ours = found.exists() and found.read_text() == "plain\n"
    if ours and _mounted(_NAMESPACES) and not any(_NAMESPACES.iterdir()):
        succeeds(["umount", _NAMESPACES])


def _silent(_: str) -> None:
    """Waiting for this lock takes milliseconds and needs no word."""
