"""An address that a DHCP client has left on its bridge, when a client is to start there again."""

from __future__ import annotations

import pytest

from hostagent.net.plan import plan
from hostagent.net.verify import FOREVER
from tests.pure.net_plans import ADDRESS
from tests.pure.test_net_plan_dhcp import BY_DHCP, NO_MODES, with_client


def verbs(kernel):
    return [step.do.verb for step in plan(BY_DHCP, kernel.look(), NO_MODES).steps]


def test_an_address_of_a_lease_that_has_not_ended_is_left_for_the_client_to_take_over():
    assert verbs(with_client(valid_s=3600)) == ["lease-start"]


@pytest.mark.parametrize("text", [ADDRESS, "10.0.0.9"])
def test_a_fixed_address_of_before_goes(text):
    assert "address-del" in verbs(with_client(valid_s=FOREVER, text=text))
