"""A DHCP client for tests: what dhcpcd 9.4.1 prints, and systemd by what it is asked."""

from __future__ import annotations

from hostagent.net.dhcp_lease import Leased
from hostagent.run import CommandError, Finished

# as dhcpcd 9.4.1 prints it
LEASE4 = """reason=BOUND
interface=xenbr0
protocol=dhcp
ip_address=10.9.0.56
subnet_cidr=24
network_number=10.9.0.0
subnet_mask=255.255.255.0
routers=10.9.0.1
domain_name_servers=10.9.0.53 10.9.0.54
domain_name=a.example
dhcp_lease_time=3600
dhcp_server_identifier=10.9.0.1
domain_search=a.example b.example
"""
LEASE6 = """reason=ROUTERADVERT
interface=xenbr0
protocol=ra
nd1_rdnss1_servers=fd09::53

reason=BOUND6
interface=xenbr0
protocol=dhcp6
dhcp6_server_id=000100013294f0029ede1f21e2fb
dhcp6_ia_na1_iaid=5001f059
dhcp6_ia_na1_ia_addr1=fd09::1cc
dhcp6_ia_na1_ia_addr1_pltime=3600
dhcp6_ia_na1_ia_addr1_vltime=7200
dhcp6_name_servers=fd09::53
dhcp6_domain_search=six.example
"""
CARRIER = "reason=CARRIER\ninterface=xenbr0\nifcarrier=up\n"
FOUND4 = Leased(
    4,
    "BOUND",
    ("10.9.0.56/24",),
    ("10.9.0.1",),
    ("10.9.0.53", "10.9.0.54"),
    ("a.example", "b.example"),
    "10.9.0.1",
    3600,
)


class Host:
    """systemd and dhcpcd, by what they are asked."""

    def __init__(self):
        self.ran = []
        self.packages = []
        self.active = False
        self.dumps = []
        self.journal = ""
        self.fails = ""
        self.version = "dhcpcd 10.1.0\n"

    def run(self, argv, *, timeout_s, package=None, check=True):
        del timeout_s, check
        self.ran.append(" ".join(argv))
        self.packages.append(package)
        if self.fails and argv[0] == self.fails:
            raise CommandError(argv, "was not found", hint="apt-get install it")
        out = ""
        match argv[:2]:
            case ["systemctl", "show"]:
                out = "active\n" if self.active else "inactive\n"
            case ["systemctl", "stop"]:
                self.active = False
            case ["systemd-run", _]:
                self.active = True
            case ["dhcpcd", "-4" | "-6"]:
                out = self.dumps.pop(0) if self.dumps else ""
            case ["dhcpcd", "--version"]:
                out = self.version
            case ["journalctl", _]:
                out = self.journal
        return Finished(tuple(argv), 0, out, "", 0.0)

    def did(self, program):
        return [line for line in self.ran if line.startswith(program) and "show" not in line]
