"""What `hostagent pif` and `hostagent net` work from: the records of the network, a look at the kernel, the daemon.

The daemon answers with what its database says; where none does, it is the cached copy.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hostagent.errors import CallerError
from hostagent.net import ask, cache, looked
from hostagent.net.reconfigure import ANSWER_SPARE_S, METHOD, NOT_NOW, complain, exit_of, text_of

if TYPE_CHECKING:
    import argparse

    from hostagent.config import Paths
    from hostagent.net.bring import Host, Request
    from hostagent.net.devices import Kernel
    from hostagent.net.records import Pif


def read(paths: Paths) -> cache.Found:
    """The records, from the daemon or the cached copy, with the names that the NICs have now. What is `told` is for who
    asked: `tell`.

    Raises CacheError, FileError, and what the daemon answers.
    """
    found = looked.read(socket_of(paths), folder_of(paths))
    if found.cached.positions:
        from hostagent.net import nics_look
        from hostagent.net.remap import fitted

        found, told = fitted(found, lambda: nics_look.look(paths.root, look().links.values(), names_of=False))
        found = found._replace(told=(*found.told, *told))
    return found


def tell(found: cache.Found) -> None:
    """Print what is told of the records, for a command that shows it nowhere else."""
    for told in found.told:
        print(f"note: {told}", file=sys.stderr)


def look() -> Kernel:
    """The kernel as it is now. Raises NetlinkError."""
    from hostagent.net.netlink import Netlink

    with Netlink() as netlink:
        return netlink.look()


def host_of(paths: Paths, bridge: str = "") -> Host:
    """This host, to change it; `bridge` is the management interface's."""
    from hostagent.net.host import open_host

    return open_host(paths.root, state=paths.state, run=paths.run, management=bridge)._replace(by="hostagent")


def change(paths: Paths, request: Request) -> Any:
    """A change, plan or check, by the daemon or here; a `result.Result`."""
    from hostagent.net.bring import DO, bring
    from hostagent.net.remap import fitted_here

    why = "no daemon runs"
    try:
        return ask.ask(
            socket_of(paths), METHOD, request._asdict(), timeout_s=request.timeout_s + ANSWER_SPARE_S
        )
    except ask.NotThereError:
        pass
    except ask.NoAnswerError as error:
        if request.mode == DO:  # it may be at work on it
            raise
        why = error.found
    except ask.AnsweredError as error:
        if error.code not in NOT_NOW:
            raise
        why = f"the daemon is not ready ({error.code})"
    found = cache.read(folder_of(paths))
    host = host_of(paths, found.cached.records.bridge)
    found = fitted_here(found._replace(told=(why, *found.told)), paths.root, host.tools.netlink)
    return bring(request, found, host)


def show(args: argparse.Namespace, result: Any) -> int:
    """Print a result; its exit code."""
    from hostagent.cli import output

    if args.json:
        output.emit(args, result)
    else:
        print(text_of(result))
        complain(result)
    return exit_of(result)


def pif_of(found: cache.Found, name: str) -> Pif:
    """The PIF that an operator means: uuid, reference, device (`eth0`, `eth0.5`) or bridge, else the name that its NIC
    had in the cached copy. Raises CallerError."""
    records = found.cached.records
    matching = []
    for pif in records.pifs.values():
        device = f"{pif.device}.{pif.vlan}" if pif.vlan >= 0 else pif.device
        if name in (pif.uuid, pif.ref, device):
            return pif
        network = records.networks.get(pif.network)
        if network is not None and network.bridge == name:
            matching.append(pif)
    nic, dot, tag = name.partition(".")
    if not matching and nic in found.former:
        return pif_of(found._replace(former={}), f"{found.former[nic]}{dot}{tag}")
    usable = [pif for pif in matching if not pif.bond_slave_of] or matching
    if len(usable) == 1:
        return usable[0]
    raise CallerError(
        f"no PIF is called {name}" if not usable else f"{name} means more than one PIF",
        hint="hostagent pif list shows uuids, devices and bridges",
        params=("PIF", name),
    )


def folder_of(paths: Paths) -> Any:
    return paths.state / cache.FOLDER


def socket_of(paths: Paths) -> str:
    return str(paths.run / "api.sock")
