"""`interface-reconfigure`: a PIF brought up and taken down from records alone."""

from __future__ import annotations

import pytest

from hostagent.errors import CallerError, HostagentError
from hostagent.net import bring, cache, history, journal, reconfigure
from hostagent.net.attached import attached
from hostagent.net.devices import Address
from hostagent.net.finding import FindingError
from hostagent.net.model import want
from hostagent.net.plan import plan
from tests.pure.net_machine import UUID, Machine, records


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Machine(tmp_path)


def test_up_makes_the_chain_and_marks_the_generation_as_verified(machine):
    result = machine.up()

    kernel = machine.kernel.look()
    assert (result["outcome"], result["told"], result["error"]) == ("changed", [], None)
    assert attached(records(), kernel) == {"nic"}
    assert [(one.text, one.prefix) for one in kernel.addresses] == [("192.0.2.10", 24)]
    assert cache.read_verified(machine.folder) == cache.read(machine.folder).cached
    assert journal.pending(machine.folder) is None
    assert all(operation["milliseconds"] is not None for operation in result["operations"])


def test_up_again_touches_nothing_and_is_no_change_in_the_history(machine):
    machine.up()
    done = machine.kernel.done

    again = machine.up()

    assert (again["outcome"], again["operations"], machine.kernel.done) == ("unchanged", [], done)
    assert len(history.read(machine.folder)) == 1


def test_plan_and_check_touch_nothing(machine):
    planned, checked = machine.up(mode=bring.PLAN), machine.up(mode=bring.CHECK)

    assert planned["outcome"] == "planned"
    assert planned["operations"][0]["milliseconds"] is None
    assert checked["outcome"] == "differs"
    assert {"device": "xenbr0", "what": "device", "wanted": "bridge", "found": "missing"} in checked[
        "differences"
    ]
    assert machine.kernel.done == 0
    assert not (machine.folder / history.NAME).exists()
    machine.up()
    assert machine.up(mode=bring.CHECK)["outcome"] == "right"


def test_a_vlan_takes_its_lower_device_along(machine):
    found = cache.read(machine.folder)

    result = bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())

    assert result["what"] == "up PIF uuid-vlan (eth0 tag 5)"
    assert "upper" in attached(records(), machine.kernel.look())


def test_down_takes_the_vlan_away_and_leaves_management(machine):
    found = cache.read(machine.folder)
    machine.up()
    bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())

    result = bring.bring(bring.Request("down", bridge="xapi5"), found, machine.host())

    assert result["outcome"] == "changed"
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert "xapi5" not in machine.kernel.look().by_name()


def taken_down(machine, pif="uuid-vlan", *, which=None, **request):
    found = cache.Found(cache.Cached(which or records(), 7))
    return bring.bring(bring.Request("down", pif, **request), found, machine.host())


@pytest.mark.parametrize("mode", [bring.DO, bring.PLAN])
def test_without_a_daemon_too_what_must_stay_is_not_taken_down(machine, mode):
    bring.bring(bring.Request("up", bridge="xapi5"), cache.read(machine.folder), machine.host())
    given = records()
    stays = given._replace(pifs={**given.pifs, "upper": given.pifs["upper"]._replace(disallow_unplug=True)})

    with pytest.raises(FindingError, match="must stay plugged") as refused:
        taken_down(machine, which=stays, mode=mode)

    assert (refused.value.code, refused.value.params) == ("PIF_DOES_NOT_ALLOW_UNPLUG", ("upper",))
    assert "pif-param-set uuid=uuid-vlan disallow-unplug=false" in refused.value.hint
    assert "xapi5" in machine.kernel.look().by_name()


def test_without_a_daemon_too_a_bridge_with_guests_is_not_taken_down(machine):
    bring.bring(bring.Request("up", bridge="xapi5"), cache.read(machine.folder), machine.host())
    bridge = machine.kernel.look().by_name()["xapi5"].ifindex
    for index, name in ((20, "vif3.0"), (21, "tap3.0")):
        machine.kernel.nic(name, index)
        machine.kernel.links[index].master = bridge

    with pytest.raises(FindingError, match=r"guests' interfaces on xapi5: tap3\.0, vif3\.0") as refused:
        taken_down(machine)

    assert (refused.value.code, refused.value.params) == ("VIF_IN_USE", ("n5", "vif3.0"))
    assert "xl network-detach" in refused.value.hint
    assert taken_down(machine, management=True, mode=bring.PLAN)["outcome"] == "planned"


def test_management_is_refused_before_what_else_keeps_a_pif_up(machine):
    machine.up()

    with pytest.raises(FindingError) as refused:
        taken_down(machine, UUID, which=records(disallow_unplug=True))

    assert refused.value.code == "PIF_IS_MANAGEMENT_INTERFACE"


def test_without_carrier_it_is_degraded_and_not_verified(tmp_path):
    cache.write(tmp_path, records())

    result = Machine(tmp_path, carrier=False).up()

    assert result["outcome"] == "degraded"
    assert result["told"] == ["no carrier on eth0: look at the cable, the switch port, the transceiver"]
    assert reconfigure.exit_of(result) == 4
    assert cache.read_verified(tmp_path) is None


def test_a_cable_that_was_pulled_is_told_also_where_nothing_is_to_do(tmp_path):
    cache.write(tmp_path, records())
    machine = Machine(tmp_path, carrier=False)
    machine.up()

    again = machine.up()

    assert (again["outcome"], again["operations"]) == ("degraded", [])
    assert again["told"] == ["no carrier on eth0: look at the cable, the switch port, the transceiver"]
    assert reconfigure.exit_of(again) == 4
    assert cache.read_verified(tmp_path) is None


def test_a_generation_in_which_another_one_is_management_is_not_verified(machine):
    found = cache.read(machine.folder)

    result = bring.bring(bring.Request("up", bridge="xapi5", management=True), found, machine.host())

    assert result["outcome"] == "changed"
    assert cache.read_verified(machine.folder) is None


def test_what_a_tool_could_not_do_degrades_and_does_not_undo(machine):
    machine.soft.append("lro cannot be switched off")

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", ["lro cannot be switched off"])
    assert attached(records(), machine.kernel.look()) == {"nic"}


def test_a_refused_step_is_undone_and_ends_with_3(machine, monkeypatch):
    before = machine.kernel.look()
    execute = machine.kernel.execute

    def refuse_addresses(operations):
        bad = [at for at, one in enumerate(operations) if one.verb == "address-add"]
        if not bad:
            return execute(operations)
        execute(operations[: bad[0]])
        raise refused(bad[0])

    machine.kernel.execute = refuse_addresses

    result = machine.up()

    assert result["outcome"] == "rolled-back"
    assert reconfigure.exit_of(result) == 3
    assert "the network is as before" in result["error"]["found"]
    assert set(machine.kernel.look().by_name()) == set(before.by_name())
    (entry,) = history.read(machine.folder)
    assert (entry.outcome, entry.told) == ("rolled-back", (result["error"]["found"],))
    assert journal.pending(machine.folder) is None


def refused(position):
    from tests.pure.net_kernel import RefusedError

    return RefusedError(position, 22, tuple(range(position)), "no")


def test_confirm_leaves_it_waiting_with_the_timer_armed_before_the_change(machine):
    result = machine.up(confirm=True, timeout_s=90.0)

    assert (result["outcome"], machine.armed) == ("waiting", [90.0])
    waiting = journal.pending(machine.folder)
    assert waiting is not None
    assert waiting.state == journal.WAITING
    assert cache.read_verified(machine.folder) is None
    kept = bring.confirm(machine.host())
    assert (kept["outcome"], machine.armed) == ("confirmed", [90.0, "disarmed"])
    assert journal.pending(machine.folder) is None
    assert bring.confirm(machine.host())["outcome"] == "nothing"


def test_what_is_not_confirmed_is_undone(machine):
    before = set(machine.kernel.look().by_name())
    machine.up(confirm=True)

    result = bring.undo(machine.host())

    assert result["outcome"] == "undone"
    assert set(machine.kernel.look().by_name()) == before
    assert bring.undo(machine.host())["outcome"] == "nothing"
    assert [entry.outcome for entry in history.read(machine.folder)] == ["undone", "waiting"]


def test_a_change_that_waits_is_not_overtaken(machine):
    machine.up(confirm=True)
    machine.waits = True
    found = cache.read(machine.folder)

    with pytest.raises(HostagentError, match="not committed"):
        bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())


def test_what_a_killed_process_left_is_undone_first(machine):
    planned = plan(want(records(), ["upper"]), machine.kernel.look())
    journal.begin(machine.folder, planned, boot="boot-1", digest="", what="up the VLAN")
    machine.kernel.execute([step.do for step in planned.steps if step.do.verb.startswith("link")][:1])

    result = machine.up()

    assert result["told"] == ["undid what was left unfinished: up the VLAN"]
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert "xapi5" not in machine.kernel.look().by_name()


def test_no_answer_of_a_dhcp_server_is_degraded_after_the_deadline(machine):
    result = machine.up(which=records(ip_mode="DHCP", ip="", netmask="", gateway=""), timeout_s=20.0)

    assert machine.kernel.look().addresses == ()
    assert result["outcome"] == "degraded"
    assert result["told"] == ["no DHCP answer on xenbr0 after 20 s; the client goes on trying"]
    assert machine.now >= 20.0


def test_an_address_that_comes_in_time_ends_the_wait(machine):
    waited = machine.wait

    def answer(seconds):
        waited(seconds)
        index = machine.kernel.look().by_name()["xenbr0"].ifindex
        if machine.now > 3 and not machine.kernel.addresses:
            machine.kernel.addresses.append(Address(index, "192.0.2.77", 24))

    machine.wait = answer

    result = machine.up(which=records(ip_mode="DHCP", ip="", netmask="", gateway=""))

    assert result["outcome"] == "changed"
    assert 3 < machine.now < 5


AUTOCONF = {"ip_mode": "None", "ip": "", "netmask": "", "gateway": "", "ipv6_mode": "Autoconf"}


def test_without_a_router_autoconfiguration_is_degraded_after_a_bound(machine):
    for _ in ("made", "unchanged"):
        began = machine.now
        result = machine.up(which=records(**AUTOCONF))

        assert result["outcome"] == "degraded"
        assert result["told"] == [
            "no router advertised a prefix on xenbr0 in 15 s; one that does so later is heeded"
        ]
        assert reconfigure.exit_of(result) == 4
        assert 15 <= machine.now - began < 16


def test_a_prefix_that_a_router_advertises_ends_the_wait(machine):
    waited = machine.wait

    def answer(seconds):
        waited(seconds)
        index = machine.kernel.look().by_name()["xenbr0"].ifindex
        if machine.now > 3 and not machine.kernel.addresses:
            machine.kernel.addresses.append(Address(index, "fe80::7", 64, scope=253))
            machine.kernel.addresses.append(Address(index, "2001:db8::7", 64))

    machine.wait = answer

    assert machine.up(which=records(**AUTOCONF))["outcome"] == "changed"
    assert 3 < machine.now < 5


def test_where_there_is_no_carrier_no_router_is_waited_for(tmp_path):
    cache.write(tmp_path, records())
    dark = Machine(tmp_path, carrier=False)

    result = dark.up(which=records(**AUTOCONF))

    assert result["told"] == ["no carrier on eth0: look at the cable, the switch port, the transceiver"]
    assert dark.now < 7


ROUTED = {"static-routes": "10.8.0.0/16/192.0.2.9"}


@pytest.mark.parametrize("at_s", [0.0, 3.0])
def test_a_static_route_follows_the_leased_address_that_it_needs(machine, monkeypatch, at_s):
    """Also where that comes after the plan was made and before it is verified."""
    look = machine.kernel.look

    def answered():
        seen = look()
        bridge = seen.by_name().get("xenbr0")
        if machine.now >= at_s and bridge is not None and not seen.addresses:
            machine.kernel.addresses.append(Address(bridge.ifindex, "192.0.2.77", 24))
        return look()

    monkeypatch.setattr(machine.kernel, "look", answered)
    which = records(ip_mode="DHCP", ip="", netmask="", gateway="")
    which.networks["n0"] = which.networks["n0"]._replace(other_config=ROUTED)

    result = machine.up(which=which)

    assert result["outcome"] == "changed", result["told"]
    [route] = [route for route in look().routes if route.destination == "10.8.0.0/16"]
    assert route.gateway == "192.0.2.9"


@pytest.mark.parametrize("request_", [bring.Request("up", "nobody"), bring.Request("up", bridge="xenbr9")])
def test_an_unknown_pif_is_told_with_those_that_there_are(machine, request_):
    with pytest.raises(CallerError, match=r"known: .*(eth0|xenbr0)"):
        bring.bring(request_, cache.read(machine.folder), machine.host())
