"""What the shell scripts promise, as far as their text shows it; the lab's tests run them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPTS = PROJECT / "scripts"


def pinned(file: Path) -> dict[str, str]:
    """Package name, as PEP 503 normalises it -> version."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_every_tool_is_pinned_once_for_developers():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[=<>~! ]", name)[0] for name in extras["dev"] + extras["lab"]} | {
        "pip",
        "setuptools",
    }
    tools, program = (
        pinned(SCRIPTS / "constraints-dev.txt"),
        pinned(PROJECT / "packaging" / "constraints.txt"),
    )

    assert {re.sub(r"[-_.]+", "-", name).lower() for name in wanted} <= set(tools)
    assert not set(tools) & set(program)


def test_bootstrap_installs_the_pinned_versions_and_again_when_they_change():
    text = (SCRIPTS / "bootstrap").read_text()

    assert "\nCONSTRAINTS=(packaging/constraints.txt scripts/constraints-dev.txt)\n" in text
    assert 'pip install --disable-pip-version-check "${CONSTRAINTS[@]/#/-c}"' in text
    assert 'cat pyproject.toml "${CONSTRAINTS[@]}"' in text


def test_bootstrap_disables_every_server_it_brings():
    servers = re.search(r"^SERVERS=\((.*)\)$", (SCRIPTS / "bootstrap").read_text(), re.MULTILINE)
    assert servers is not None

    assert {"nfs-ganesha", "rpcbind", "nfs-common", "tgt"} <= set(servers[1].split())


@pytest.mark.parametrize("wanted", ["libvirt", "systemd.daemon", "pkgutil.walk_packages(hostagent.__path__"])
def test_a_new_version_is_tried_with_what_the_daemon_imports(wanted):
    code = (SCRIPTS / "install-dom0").read_text().split("IMPORT_ALL='")[1].split("'\n")[0]
    compile(code, "IMPORT_ALL", "exec")

    assert wanted in code
    assert '"$bin/python" -I -B -c "$IMPORT_ALL"' in (SCRIPTS / "install-dom0").read_text()


def test_the_installer_keeps_a_way_back_and_cleans_up():
    text = (SCRIPTS / "install-dom0").read_text()

    assert re.search(r'link "\$former" "\$PREFIX/current"', text)
    assert "\numask 022\n" in text
    assert "local unpacked" not in text
    assert ' >"$log"' not in text  # the first error would be lost
    assert "sort -V" in text


def test_the_installer_gives_interface_reconfigure_its_name_where_it_is_free_and_takes_it_back():
    text = (SCRIPTS / "install-dom0").read_text()
    uninstall = text.split("uninstall_agent() {")[1]

    assert 'link_where_free interface-reconfigure "$RECONFIGURE" "$RECONFIGURE_COMMAND"' in text
    assert '"$RECONFIGURE_COMMAND" "$RECONFIGURE"' in uninstall
    assert '"$bin/interface-reconfigure" --help' in text.split("verify_version() {")[1]


def test_the_installed_interface_reconfigure_is_the_program_of_the_tree():
    """Both begin with the system's Python: the version's own takes longer to start."""
    text = (SCRIPTS / "install-dom0").read_text()
    made = text[text.index("printf 'try:") : text.index('} >"$1/bin/interface-reconfigure"')]
    program = "".join(re.findall(r"printf '(.*)'", made)).replace("\\n", "\n")

    assert program.endswith("\n\nsys.exit(main(sys.argv[1:]))\n")
    assert (SCRIPTS / "interface-reconfigure").read_text().endswith(f"\n\n{program}")


def test_the_installer_knows_the_groups_and_the_service_name_of_log_ins():
    from hostagent.api import pam

    text = (SCRIPTS / "install-dom0").read_text()

    assert f"\nAPI_GROUPS=({' '.join(pam.GROUPS)})\n" in text
    assert f"\nPAM=/etc/pam.d/{pam.SERVICE}\n" in text
    assert "groupdel" not in re.sub(r"^ *say .*$", "", text, flags=re.MULTILINE)


def test_passwords_are_checked_as_the_host_checks_them():
    lines = [
        line for line in (PROJECT / "packaging" / "hostagent.pam").read_text().splitlines() if line[:1] != "#"
    ]

    assert lines == ["@include common-auth", "@include common-account"]
    assert "packaging/hostagent.pam" in (SCRIPTS / "make-bundle").read_text()


def test_the_demo_shows_the_report_only_when_the_sequence_has_ended():
    text = (SCRIPTS / "demo").read_text()

    assert text.index("until jq -e .ending") < text.index("What the start-up sequence did")


def test_the_first_part_of_the_full_tests_runs_the_other_layers_too():
    makefile = (PROJECT / "Makefile").read_text()

    assert "test-full: $(if $(filter 1/%,$(SHARD)),check check-netns) ##" in makefile
    assert "column" not in makefile
    assert "$(MAKE)" not in makefile  # `make -n` would run that line
