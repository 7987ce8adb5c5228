"""`rewrite` has no plan of the daemon's: it is refused with --plan on the way in, and by the daemon."""

from __future__ import annotations

import pytest

from hostagent.api.calls_net import asked
from hostagent.api.methods import WrongTypeError
from hostagent.net import options


def test_a_plan_of_what_the_daemon_writes_is_a_wrong_command_line():
    with pytest.raises(options.UsageError, match="--plan goes with"):
        options.parse(["--plan", "rewrite"])


def test_a_plan_of_what_is_given_in_full_is_right():
    words = ["--force", "xenbr0", "rewrite", "--device=eth0", "--mac=52:54:00:00:00:01", "--mode=dhcp"]

    assert options.parse(["--plan", *words]).plan


@pytest.mark.parametrize("mode", ["plan", "check"])
def test_the_daemon_refuses_to_rewrite_by_way_of_a_look(mode):
    with pytest.raises(WrongTypeError, match="mode is do"):
        asked({"action": "rewrite", "mode": mode})
    assert asked({"action": "up", "mode": mode})
    assert asked({"action": "rewrite", "mode": "do"})
