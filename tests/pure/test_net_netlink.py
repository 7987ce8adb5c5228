"""What a refusal of the kernel becomes. The socket itself is tested in tests/netns/netlink."""

from __future__ import annotations

import errno

import pytest

from hostagent.net.netlink import _failed
from hostagent.net.operation import Operation


@pytest.mark.parametrize(("kind", "module"), [("bond", "bonding"), ("vlan", "8021q"), ("bridge", "bridge")])
def test_the_module_that_is_missing_is_named(kind, module):
    operation = Operation("link-add", "new0", 7, {"kind": kind})

    refused = _failed([operation], {0: (errno.EOPNOTSUPP, "Unknown device type")}, 0)

    assert "Unknown device type" in refused.found
    assert refused.found.endswith(f"the kernel lacks the module {module}")
    assert "linux-image" in refused.hint
    assert (refused.errno, refused.position, refused.executed) == (errno.EOPNOTSUPP, 0, ())


def test_another_refusal_names_no_module():
    operation = Operation("link-add", "new0", 7, {"kind": "bond"})

    assert "module" not in _failed([operation], {0: (errno.EEXIST, "")}, 0).found
