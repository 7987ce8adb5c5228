"""The text of resolv.conf: what it says, how ours reads, and whether one says something else than is wanted.

Apart from `resolver.py`, which knows whose the file is and writes it: plans and checks need only the text.
"""

from __future__ import annotations

from hostagent.net.devices import Dns

HEADER = "# Written by hostagent: the name servers of the PIF that owns DNS.\n"


def render(dns: Dns, previous: str = "") -> str:
    """The content of resolv.conf; empty without a server. `previous`: whose `options` and `sortlist` lines stay."""
    if not dns.servers:
        return ""
    stays = [line for line in previous.splitlines() if line.startswith(("options ", "options\t", "sortlist"))]
    lines = [
        *([f"search {' '.join(dns.search)}"] if dns.search else []),
        *(f"nameserver {server}" for server in dns.servers),
        *stays,
    ]
    return HEADER + "\n".join(lines) + "\n"


def parse(text: str) -> Dns:
    """The name servers and search domains of a resolv.conf; lines that say neither are passed over."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *names]:  # of several such lines the last one counts (resolv.conf(5))
                search = tuple(names)
    return Dns(tuple(dict.fromkeys(servers)), search)


def is_other(text: str, dns: Dns) -> bool:
    """Whether a resolv.conf says something else than these servers and domains; never, where there are no servers."""
    return bool(dns.servers) and parse(text) != dns
