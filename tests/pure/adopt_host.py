"""A host whose eth0 another daemon has: kernel, files, systemd and a wire, as far as taking over meets them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from hostagent.net import bring, cache, foreign, foreign_daemons, journal, nics_types, probe
from hostagent.net.apply import Tools
from hostagent.net.devices import Kernel, Lease, Link
from hostagent.net.dhcp_lease import Leased
from hostagent.net.operation import Operation
from hostagent.net.verify import Around
from hostagent.netctl.adopt_place import Place
from hostagent.netctl.plug import Site as PlugSite
from tests.pure import netctl_host
from tests.pure.net_kernel import FakeKernel

MAC = "02:00:00:00:00:00"
UUIDS = "INSTALLATION_UUID='host-uuid'\nMANAGEMENT_INTERFACE=''\n"
KEYFILE = (
    "[connection]\nid=lan\nuuid=77\ntype=ethernet\ninterface-name=eth0\n\n"
    "[ipv4]\nmethod=manual\naddress1=192.0.2.10/24,192.0.2.1\ndns=192.0.2.53;\n"
)
NETWORKD = "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nDNS=192.0.2.53\n"
DHCP = "[Match]\nName=e*\n\n[Network]\nDHCP=yes\n"
LEASE = "ADDRESS=192.0.2.10\nNETMASK=255.255.255.0\nROUTER=192.0.2.1\nDNS=192.0.2.53\nCLIENTID=ff00010203\n"
INTERFACES = """\
auto lo eth0
iface lo inet loopback
iface eth0 inet static
    address 192.0.2.10/24
    gateway 192.0.2.1
    dns-nameservers 192.0.2.53
"""


class Killed(BaseException):
    """As a kill, which leaves no time for anything."""


class Watched(FakeKernel):
    """Counts the operations after which no device had the address, or none the default route."""

    without = 0
    put_back = False
    """Whether a daemon puts back an address that is taken from eth0."""

    def one(self, operation):
        had = list(self.addresses)
        super().one(operation)
        if self.put_back and (operation.verb, operation.ifindex) == ("address-del", 2):
            self.addresses = had
        held = any(one.text == "192.0.2.10" for one in self.addresses)
        self.without += not held or (bool(self.done) and not self.routes)


@contextlib.contextmanager
def stock(folder):
    """The database of a host whose first card is not ours yet."""
    (folder / "db").mkdir(parents=True)
    with netctl_host.opened(folder / "db") as found:
        none = {"ip_configuration_mode": "None", "IP": "", "netmask": "", "gateway": "", "management": False}
        found.set("PIF", found.pifs[0], **none, currently_attached=False)
        yield found


def by_dhcp(folder, database):
    found = Host(folder, database, dhcp=True).networkd(DHCP)
    found.put("/run/systemd/netif/leases/2", LEASE)
    return found


class Host:
    """`kill_after` so many points at which it may be killed. `said`: what daemons were told."""

    def __init__(self, tmp_path, database, *, dhcp=False):
        self.root, self.state = tmp_path / "root", tmp_path / "state"
        self.inventory = self.root / "etc/hostagent/inventory"
        self.put("/etc/hostagent/inventory", UUIDS)
        self.put("/sys/class/net/eth0/ifindex", "2\n")
        self.kernel = Watched(Kernel({2: Link(2, "eth0", "", MAC, 1500, 0, 0, 1, 0, carrier=True, operstate=6,
                                                 permanent_mac=MAC, max_mtu=9000)}))  # fmt: skip
        lifetime = {"valid_s": 3000, "flags": 0x0} if dhcp else {}
        self.do("address-add", {"text": "192.0.2.10", "prefix": 24, **lifetime})
        metric, protocol = (1024, 16) if dhcp else (0, 4)
        gateway = {"destination": "default4", "gateway": "192.0.2.1", "protocol": protocol, "metric": metric}
        self.do("route-add", gateway)
        self.management = ("", "IPv4")
        self.boot = "this boot"
        self.said: list[tuple[str, str, str]] = []
        self.clients: dict[tuple[str, int], Lease] = {}
        self.sysctls: dict[str, str] = {}
        self.resolv = ""
        self.offered = self.given = "192.0.2.10"
        self.asked: list[tuple[str, str, str, float]] = []
        self.answering = {"192.0.2.1", "192.0.2.53"}
        self.kill_after = -1
        self.points: list[str] = []
        self.armed = 0.0
        self.late = False
        self.now = 0.0
        self.kernel.done, self.kernel.without = 1, 0
        self.place = Place(
            self.root, self.state, self.inventory, "host-uuid", database, self._site(), self._keep, self._lease,
            self._offer,
        )  # fmt: skip

    def do(self, verb, args, name="eth0", index=2):
        self.kernel.execute([Operation(verb, name, index, args)])

    def put(self, path, content):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def files(self):
        """What the host's files hold."""
        return {
            str(file.relative_to(self.root)): file.read_text()
            for file in sorted((self.root / "etc").rglob("*"))
            if file.is_file()
        }

    def networkd(self, content=NETWORKD, *, others=False):
        self.put("/etc/systemd/network/20-eth0.network", content)
        self.put("/run/systemd/netif/links/2", "ADMIN_STATE=configured\n"
                 "NETWORK_FILE=/etc/systemd/network/20-eth0.network\n")  # fmt: skip
        if others:
            self.put("/run/systemd/netif/links/3", "ADMIN_STATE=configured\n")
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True)
        (wants / "systemd-networkd.service").write_text("")
        return self

    def network_manager(self):
        self.put("/etc/NetworkManager/system-connections/lan.nmconnection", KEYFILE)
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True)
        (wants / "NetworkManager.service").write_text("")
        self.kernel.put_back = True
        return self

    def owners(self, name):
        return foreign.owners(foreign.nic(name, self.root), self.root)

    def at_boot(self):
        """Who has eth0 when systemd-networkd has no state yet."""
        (self.root / "run/systemd/netif/links/2").unlink(missing_ok=True)
        return [owner.daemon for owner in self.owners("eth0")]

    def addresses(self):
        links = self.kernel.look().links
        return {(links[one.device].name, one.text, one.prefix) for one in self.kernel.look().addresses}

    def routes(self):
        look = self.kernel.look()
        return {(look.links[r.device].name, r.destination, r.gateway) for r in look.routes}

    def answers(self):
        """As somebody on the network finds this host: the address is on a device that frames come in by."""
        look = self.kernel.look()
        nic = look.by_name()["eth0"]
        return any(
            one.device in (nic.ifindex, nic.master) and one.text == "192.0.2.10" for one in look.addresses
        )

    # --- what a Place has ---

    def _site(self):
        return PlugSite(
            open=self.open, owners=self.owners, management=lambda: self.management, set_management=self._manage,
            serve=lambda *_: None, nics=lambda: [nics_types.Nic(0, "eth0", MAC)], has_bridge=lambda _: False,
            ask=self._ask,
        )  # fmt: skip

    def open(self, bridge):
        netlink = SimpleNamespace(look=self.kernel.look, execute=self.kernel.execute)
        tools = Tools(
            netlink, self._sysctl, lambda *_: None, self._start, self._stop, self._resolve, self._hold, self._wait,
            self._file, self._foreign,
        )  # fmt: skip
        return bring.Host(
            self.state / cache.FOLDER, tools, self.boot, self._around, self._arm, self._disarm, self._wait,
            lambda: self.now, "a test",
        )  # fmt: skip

    def _sysctl(self, path, value):
        self.sysctls[path] = value

    def _resolve(self, text, _bridge):
        self.resolv = text

    def _start(self, lease):
        self.clients[lease.device, lease.family] = lease

    def _stop(self, lease):
        raise AssertionError(f"the lease of {lease} was given back to the server")

    def _hold(self, point):
        self.points.append(point)
        if len(self.points) == self.kill_after:
            raise Killed(point)

    def _file(self, path, content):
        from pathlib import Path

        self._hold(f"file {path}")
        foreign_daemons.put_file(Path(path), content)

    def _foreign(self, daemon, what, device):
        self._hold(f"tell {what}")
        self.said.append((daemon, what, device))
        if daemon == "NetworkManager":
            confs = (
                self.root / top / "NetworkManager/conf.d/00-hostagent-eth0.conf" for top in ("etc", "run")
            )
            self.kernel.put_back = not any(conf.exists() for conf in confs)
        if what == "forget":
            self.clients = {}
        if what in ("let-go", "take"):
            state = self.root / "run/systemd/netif/links/2"
            if state.exists():
                switch = self.root / "etc/systemd/network/00-hostagent-eth0.network"
                named = "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/20-eth0.network\n"
                state.write_text("ADMIN_STATE=unmanaged\n" if switch.exists() else named)

    def _around(self, wanted, _kernel):
        leases = tuple(self.clients.values())
        features = {"eth0": {"gro": True, "lro": False}}
        return Around(sysctls=dict(self.sysctls), leases=leases, resolver=self.resolv, features=features)

    def _arm(self, seconds):
        self.armed = seconds

    def _disarm(self):
        if self.late:
            raise foreign_daemons.ForeignError("too late", hint="")
        self.armed = 0.0

    def _wait(self, seconds):
        self.now += seconds

    def _manage(self, bridge, family, _former):
        self.management = (bridge, family)
        self.inventory.write_text(UUIDS.replace("INTERFACE=''", f"INTERFACE='{bridge}'"))

    def _ask(self, one):
        return probe.Answer(one, one.target in self.answering)

    def _keep(self, records):
        still = {ref: pif._replace(currently_attached=False) for ref, pif in records.pifs.items()}
        return cache.write(self.state / cache.FOLDER, records._replace(pifs=still))

    def _offer(self, client, timeout_s):
        self.asked.append((client.bridge, client.client_id, client.request, timeout_s))
        return self.offered

    def _lease(self, bridge, family):
        if (bridge, family) not in self.clients or not self.given:
            return None
        return Leased(4, "BOUND", (f"{self.given}/24",), ("192.0.2.1",))

    def time_is_up(self):
        """What the timer runs when nobody stopped it."""
        assert self.armed
        return bring.undo(self.open(""))

    def pending(self):
        return journal.pending(self.state / cache.FOLDER)
