"""scripts/install-dom0 on a real dom0 without a network: install, repeat, upgrade, interrupt, remove."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import time
from typing import TYPE_CHECKING

import pytest
from nested_xen import install
from nested_xen.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from nested_xen.host import Host

TREES = (
    "/opt/hostagent /usr/bin/hostagent /usr/lib/systemd/system /etc/systemd/system /etc/hostagent"
    " /var/lib/hostagent /usr/share/bash-completion/completions/hostagent"
    " /usr/bin/hostagent-xe /usr/bin/xe /etc/pam.d/hostagent /etc/group /etc/gshadow"
)
STATE_OF_TREES = f"find {TREES} -printf '%p %y %m %T@ %i %s %l\\n' 2>/dev/null | sort"
INSTALL_S = 600
BYSTANDER = """\
name = "bystander"
type = "pv"
kernel = "/root/kernel"
memory = 128
"""


def deliver(host: Host, tree: Path, remote: str) -> None:
    """Put an unpacked bundle onto the host."""
    host.exec(f"rm -rf {remote}")
    host.put(tree, remote)


def changed(bundle: Path, target: Path, *, version: str, edit: tuple[str, str] | None = None) -> Path:
    """A copy of a bundle with another version; `edit`: a module of the package and what to append to it."""
    shutil.copytree(bundle, target)
    package = target.parent / f"{target.name}-package"
    package.mkdir()
    run(["tar", "-xf", target / "hostagent.tar.gz", "-C", package])
    init = package / "hostagent" / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
    if edit is not None:
        module = package / "hostagent" / edit[0]
        module.write_text(module.read_text() + edit[1])
    with tarfile.open(target / "hostagent.tar.gz", "w:gz") as tar:
        tar.add(package, arcname=".")
    (target / "VERSION").write_text(f"{version}\n")
    files = [file for file in sorted(target.rglob("*")) if file.is_file() and file.name != "SHA256SUMS"]
    (target / "SHA256SUMS").write_text(
        "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  ./{f.relative_to(target)}\n" for f in files)
    )
    return target


KILLED_AT = (
    ("unpacking", "[ -d /opt/hostagent/7.7.7-*.new/lib/python3*/site-packages/hostagent ]"),
    ("built", "[ -d /opt/hostagent/7.7.7-*[0-9a-f]/bin ]"),
    ("switched", "readlink /opt/hostagent/current | grep -q ^7.7.7"),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of this source tree, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    run(["tar", "-xf", install.bundle(), "-C", folder])
    return next(folder.iterdir())


@pytest.fixture
def bare(xen_host_bare, bundle):
    """A dom0 that has the bundle in /root/bundle, and hostagent not installed."""
    if xen_host_bare.exec("test -e /opt/hostagent", check=False).code == 0:
        xen_host_bare.reset()
    deliver(xen_host_bare, bundle, "/root/bundle")
    return xen_host_bare


@pytest.fixture
def installed(xen_host_bare, bundle):
    """A dom0 with hostagent installed from /root/bundle."""
    deliver(xen_host_bare, bundle, "/root/bundle")
    xen_host_bare.exec("/root/bundle/install-dom0 --upgrade", timeout_s=INSTALL_S)
    return xen_host_bare


@pytest.mark.full
def test_a_bare_dom0_gets_a_working_command_without_a_network(bare):
    before = bare.exec("hostagent --version", check=False)

    said = bare.exec("/root/bundle/install-dom0", timeout_s=INSTALL_S).stdout

    assert before.code == 127
    assert "start it with: systemctl start hostagent" in said
    assert bare.exec("hostagent --version").stdout.startswith("hostagent ")
    assert bare.exec("systemd-run --quiet --pipe --wait hostagent --version").stdout.startswith("hostagent ")
    assert bare.exec("stat -c '%a %U' /etc/hostagent /var/lib/hostagent /run/hostagent").stdout.split("\n")[
        :3
    ] == [
        "755 root",
        "700 root",
        "700 root",
    ]
    assert bare.exec("systemctl is-enabled hostagent").stdout == "enabled\n"
    assert bare.exec("systemd-analyze verify hostagent.service").stderr == ""
    assert bare.exec("hostagent-xe help; xe help").stdout.count("everyday commands:") == 2
    assert bare.exec("getent group hostagent-admin hostagent-readonly").stdout.count("\n") == 2
    assert bare.exec("stat -c '%a %U' /etc/pam.d/hostagent").stdout == "644 root\n"


@pytest.mark.full
def test_what_is_not_ours_is_kept(bare):
    bare.exec("printf '#!/bin/sh\\necho another\\n' >/usr/bin/xe; chmod 755 /usr/bin/xe")
    said = bare.exec("/root/bundle/install-dom0", timeout_s=INSTALL_S).stdout
    assert "kept: xe is /usr/bin/xe; ours is /usr/bin/hostagent-xe" in said
    bare.exec("echo '# mine' >>/etc/pam.d/hostagent")

    assert bare.exec("/root/bundle/install-dom0", timeout_s=INSTALL_S).stdout == "nothing to do\n"
    said = bare.exec("/root/bundle/install-dom0 --uninstall", timeout_s=120).stdout

    assert "kept: /etc/pam.d/hostagent" in said
    assert bare.exec("xe").stdout == "another\n"
    assert bare.exec("tail -n 1 /etc/pam.d/hostagent").stdout == "# mine\n"
    said = bare.exec("/root/bundle/install-dom0 --uninstall --purge").stdout
    assert "kept: the group hostagent-admin" in said
    assert bare.exec("test -e /etc/pam.d/hostagent", check=False).code == 1
    bare.exec("rm /usr/bin/xe")


@pytest.mark.oldest
def test_a_second_run_finds_nothing_to_do_and_changes_nothing(installed):
    before = installed.exec(STATE_OF_TREES).stdout

    said = installed.exec("/root/bundle/install-dom0", timeout_s=INSTALL_S).stdout

    assert said == "nothing to do\n"
    assert installed.exec(STATE_OF_TREES).stdout == before
    assert before.count("\n") > 100


@pytest.mark.full
def test_a_dry_run_names_each_change_and_makes_none(bare):
    before = bare.exec(STATE_OF_TREES).stdout

    said = bare.exec("/root/bundle/install-dom0 --dry-run").stdout

    assert "would link /usr/bin/hostagent" in said
    assert said.endswith("dry run: nothing was changed\n")
    assert bare.exec(STATE_OF_TREES).stdout == before


@pytest.mark.full
def test_of_debians_python_modules_only_libvirt_and_systemd_are_visible(installed):
    python = "/opt/hostagent/current/bin/python -I"
    installed.exec("echo > /usr/lib/python3/dist-packages/foreign_module.py")

    found = installed.exec(
        f"{python} -c 'import libvirt, psutil, pyxs, systemd.daemon; "
        'print(libvirt.getVersion() > 0, psutil.__file__.startswith("/opt/hostagent/dependencies"))\''
    ).stdout
    foreign = installed.exec(f"{python} -c 'import foreign_module'", check=False)

    assert found == "True True\n"
    assert "No module named 'foreign_module'" in foreign.stderr


@pytest.mark.oldest
def test_the_first_start_creates_what_is_missing_and_says_so(bare):
    bare.exec("/root/bundle/install-dom0 --start", timeout_s=INSTALL_S)

    uuids = bare.exec(
        "grep -E \"^(INSTALLATION|CONTROL_DOMAIN)_UUID='[0-9a-f-]{36}'$\" /etc/hostagent/inventory"
    )
    secret = bare.exec("stat -c '%a %s' /etc/hostagent/ptoken").stdout.split()
    journal = bare.exec("journalctl -u hostagent --no-pager -o cat").stdout

    assert len(uuids.stdout.splitlines()) == 2
    assert secret == ["600", str(3 * 36 + 2)]
    assert "/etc/hostagent/inventory" in journal
    assert "/etc/hostagent/ptoken" in journal
    assert bare.exec("cat /etc/hostagent/ptoken").stdout not in journal


@pytest.mark.full
def test_the_service_shares_the_hosts_mount_namespace(installed):
    installed.exec("systemctl start hostagent", timeout_s=120)

    pid = installed.exec("systemctl show -P MainPID hostagent").stdout.strip()

    assert int(pid) > 0
    namespaces = installed.exec(f"readlink /proc/1/ns/mnt /proc/{pid}/ns/mnt").stdout.split()
    assert namespaces[0] == namespaces[1]


@pytest.mark.full
def test_an_upgrade_is_asked_for_restarts_the_service_and_removes_the_old_version(
    installed, bundle, tmp_path
):
    deliver(installed, changed(bundle, tmp_path / "new", version="9.9.9"), "/root/new")
    installed.exec("systemctl start hostagent", timeout_s=120)
    identity = installed.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout

    refused = installed.exec("/root/new/install-dom0", check=False)
    installed.exec("/root/new/install-dom0 --upgrade", timeout_s=INSTALL_S)

    assert refused.code == 1
    assert "--upgrade" in refused.stderr
    assert installed.exec("hostagent --version").stdout == "hostagent 9.9.9\n"
    assert installed.exec("systemctl is-active hostagent").stdout == "active\n"
    pid = installed.exec("systemctl show -P MainPID hostagent").stdout.strip()
    assert "/9.9.9-" in installed.exec(f"tr '\\0' ' ' < /proc/{pid}/cmdline").stdout
    assert installed.exec("ls /opt/hostagent").stdout.count("9.9.9") == 1
    assert len(installed.exec("ls /opt/hostagent").stdout.split()) == 3
    assert installed.exec("cat /etc/hostagent/inventory /etc/hostagent/ptoken").stdout == identity


@pytest.mark.full
@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (("__main__.py", "\nraise SystemExit('bad')\n"), "does not run"),
        (
            ("api/server.py", "\nimport no_such\n"),
            "does not run (ModuleNotFoundError: No module named 'no_such')",
        ),
    ],
    ids=["its command fails", "a library is missing"],
)
def test_a_new_version_that_does_not_run_leaves_the_old_one_in_use(installed, bundle, tmp_path, edit, why):
    deliver(installed, changed(bundle, tmp_path / "bad", version="8.8.8", edit=edit), "/root/bad")
    version = installed.exec("hostagent --version").stdout

    result = installed.exec("/root/bad/install-dom0 --upgrade", check=False, timeout_s=INSTALL_S)

    assert result.code == 1
    assert why in result.stderr
    assert installed.exec("hostagent --version").stdout == version
    assert "8.8.8" not in installed.exec("ls /opt/hostagent").stdout


@pytest.mark.full
def test_a_version_with_which_the_service_does_not_start_is_taken_back(installed, bundle, tmp_path):
    stopping = "\n\ndef run(*_args: object, **_options: object) -> int:\n    return 2\n"
    broken = changed(bundle, tmp_path / "bad", version="8.8.6", edit=("daemon.py", stopping))
    deliver(installed, broken, "/root/bad")
    installed.exec("systemctl start hostagent", timeout_s=120)
    version = installed.exec("hostagent --version").stdout

    results = [
        installed.exec("/root/bad/install-dom0 --upgrade", check=False, timeout_s=INSTALL_S) for _ in range(2)
    ]

    assert [result.code for result in results] == [1, 1]
    assert all("is in use again and runs" in result.stderr for result in results)
    assert installed.exec("hostagent --version").stdout == version
    assert installed.exec("systemctl is-active hostagent").stdout == "active\n"


@pytest.mark.full
def test_the_former_version_is_kept_until_the_service_was_active_with_the_new_one(
    installed, bundle, tmp_path
):
    deliver(installed, changed(bundle, tmp_path / "new", version="5.5.5"), "/root/new")
    installed.exec("systemctl stop hostagent; rm -f /opt/hostagent/former", timeout_s=120)
    before = installed.exec("readlink /opt/hostagent/current").stdout

    installed.exec("/root/new/install-dom0 --upgrade", timeout_s=INSTALL_S)
    again = installed.exec("/root/new/install-dom0 --upgrade", timeout_s=INSTALL_S).stdout
    kept = installed.exec("readlink /opt/hostagent/former").stdout
    usable = installed.exec("/opt/hostagent/former/bin/hostagent --version", check=False).code
    installed.exec("/root/new/install-dom0 --upgrade --start", timeout_s=INSTALL_S)

    assert again == "nothing to do\n"
    assert (kept, usable) == (before, 0)
    assert len(installed.exec("ls /opt/hostagent").stdout.split()) == 3


@pytest.mark.full
def test_uninstalling_stops_a_service_that_is_between_two_starts(installed):
    installed.exec(
        "systemctl stop hostagent; mkdir -p /run/systemd/system/hostagent.service.d;"
        " printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestartPreventExitStatus=\\nRestartSec=600\\n'"
        " > /run/systemd/system/hostagent.service.d/loop.conf;"
        " systemctl daemon-reload; systemctl start hostagent",
        check=False,
        timeout_s=120,
    )
    between = installed.exec("systemctl show -P ActiveState -P MainPID hostagent").stdout.split()

    said = installed.exec("/root/bundle/install-dom0 --uninstall", timeout_s=120).stdout
    installed.exec("rm -r /run/systemd/system/hostagent.service.d; systemctl daemon-reload")

    assert sorted(between) == ["0", "activating"]
    assert "stop hostagent.service" in said


@pytest.mark.full
@pytest.mark.parametrize(("moment", "condition"), KILLED_AT)
def test_an_upgrade_killed_half_way_leaves_a_working_version(installed, bundle, tmp_path, moment, condition):
    installed.exec("systemctl start hostagent", timeout_s=120)
    deliver(installed, changed(bundle, tmp_path / "new", version="7.7.7"), "/root/new")

    held = installed.exec(
        "setsid /root/new/install-dom0 --upgrade >/root/upgrade.log 2>&1 & pid=$!; "
        f"until {condition}; do kill -0 $pid || {{ cat /root/upgrade.log; exit 9; }}; sleep 0.02; done; "
        "kill -9 -- -$pid",
        check=False,
        timeout_s=INSTALL_S,
    )

    assert held.code == 0, f"the upgrade was over before it was {moment}: {held.stdout}"
    assert installed.exec("hostagent --version").stdout in (
        "hostagent 7.7.7\n",
        f"hostagent {bundle_version(bundle)}\n",
    )
    installed.exec("/root/new/install-dom0 --upgrade", timeout_s=INSTALL_S)
    assert installed.exec("hostagent --version").stdout == "hostagent 7.7.7\n"
    assert len(installed.exec("ls /opt/hostagent").stdout.split()) == 3
    assert installed.exec("/root/new/install-dom0").stdout == "nothing to do\n"


@pytest.mark.full
@pytest.mark.destructive
def test_a_power_cut_during_an_upgrade_leaves_a_working_version(installed, bundle, tmp_path):
    deliver(installed, changed(bundle, tmp_path / "new", version="6.6.6"), "/root/new")
    installed.exec("setsid /root/new/install-dom0 --upgrade >/root/upgrade.log 2>&1 &")
    deadline = time.monotonic() + INSTALL_S
    while installed.exec("readlink /opt/hostagent/current | grep -q ^6.6.6", check=False).code:
        assert time.monotonic() < deadline

    installed.power_off()
    installed.boot()

    assert installed.exec("hostagent --version").stdout in (
        "hostagent 6.6.6\n",
        f"hostagent {bundle_version(bundle)}\n",
    )
    installed.exec("/root/new/install-dom0 --upgrade", timeout_s=INSTALL_S)
    assert installed.exec("hostagent --version").stdout == "hostagent 6.6.6\n"


@pytest.mark.full
def test_a_damaged_bundle_is_refused_before_anything_changes(bare):
    bare.exec("cp -r /root/bundle /root/damaged; echo x >> /root/damaged/hostagent.tar.gz")

    result = bare.exec("/root/damaged/install-dom0", check=False)

    assert result.code == 1
    assert "is damaged: copy it again" in result.stderr
    assert bare.exec("test -e /opt/hostagent", check=False).code == 1


@pytest.mark.full
def test_only_root_may_install(bare):
    result = bare.exec(
        "cp -r /root/bundle /tmp/bundle; runuser -u nobody /tmp/bundle/install-dom0", check=False
    )

    assert result.code == 1
    assert "root only" in result.stderr


@pytest.mark.full
def test_a_missing_debian_package_and_no_network_is_said_in_one_line(bare):
    bare.exec("dpkg --remove --force-depends python3-systemd")

    result = bare.exec("/root/bundle/install-dom0", check=False, timeout_s=INSTALL_S)

    assert result.code == 1
    assert result.stderr.splitlines()[-1].endswith("apt-get install python3-systemd")
    assert bare.exec("test -e /opt/hostagent/current", check=False).code == 1
    bare.reset()


@pytest.mark.full
def test_uninstalling_leaves_guests_network_and_identity_and_purging_takes_the_identity(installed):
    installed.exec("systemctl start hostagent", timeout_s=120)
    installed.exec("hostagent status --watch", check=False, timeout_s=120)  # until it has raised the networks
    installed.exec("cp /boot/vmlinuz-* /root/kernel")
    installed.exec("cat > /root/guest.cfg; xl create -q -p /root/guest.cfg", timeout_s=120, stdin=BYSTANDER)
    network = json.loads(installed.exec("ip -j link").stdout)

    said = installed.exec("/opt/hostagent/current/share/install-dom0 --uninstall", timeout_s=120).stdout
    again = installed.exec("/root/bundle/install-dom0 --uninstall").stdout

    assert "kept: /etc/hostagent and /var/lib/hostagent" in said
    assert again.endswith("nothing to do\n")
    gone = "/opt/hostagent /usr/bin/hostagent /usr/bin/hostagent-xe /usr/bin/xe /etc/pam.d/hostagent /var/lib/xcp/xapi"
    assert installed.exec(f"ls -d {gone}", check=False).stdout == ""
    assert installed.exec("systemctl status hostagent", check=False).code == 4  # no such unit
    assert (
        installed.exec("test -s /etc/hostagent/ptoken -a -s /etc/hostagent/inventory", check=False).code == 0
    )
    assert "bystander" in installed.exec("xl list").stdout
    assert json.loads(installed.exec("ip -j link").stdout) == network
    installed.exec("/root/bundle/install-dom0 --uninstall --purge")
    assert (
        installed.exec(
            "test -e /etc/hostagent -o -e /var/lib/hostagent -o -e /run/hostagent", check=False
        ).code
        == 1
    )
    installed.exec("xl destroy bystander")


def bundle_version(bundle: Path) -> str:
    return (bundle / "VERSION").read_text().strip()
