"""Rows of the start-up table about the network: management interface, PIF records, the other networks."""

from __future__ import annotations

from hostagent.startup import steps_net, steps_networks
from hostagent.startup.step import Policy, Role, Step

MANAGEMENT = (
    Step(
        name="raise-management",
        ref="S23",
        role=Role.ANY,
        needs=("read-configuration", "read-inventory", "start-database"),
        policy=Policy.DEGRADE,
        timeout_s=300,
        run=steps_net.raise_management,
        plan=steps_net.plan_management,
        hold_points=(
            "before",
            "change-mended",
            "rows-written",
            "inventory-written",
            "plan-begun",
            "plan-applied",
        ),
        why="before all other networks and before records that need an address; after the database, which says what an"
        " unfinished change led to, and has the records it is brought up from",
    ),
)

RECORDS = (
    Step(
        name="mend-bonds-and-vlans",
        ref="S28.s12",
        role=Role.ANY,
        needs=("find-localhost",),
        policy=Policy.BEST_EFFORT,
        timeout_s=120,
        run=steps_networks.mend_bonds_and_vlans,
        plan=steps_networks.plan_bonds_and_vlans,
        hold_points=("before", "rows-written"),
        why="before S28.s13, which looks for their chains in the kernel",
    ),
    Step(
        name="record-attachment",
        ref="S28.s13",
        role=Role.ANY,
        needs=("find-localhost",),
        policy=Policy.DEGRADE,
        timeout_s=120,
        run=steps_networks.record_attachment,
        plan=steps_networks.plan_attachment,
        hold_points=("before", "rows-written"),
        why="after the host's record, to which PIFs belong; before S47, which brings up what is not attached",
    ),
)

POOL_RECORDS = (
    Step(
        name="recreate-vlans",
        ref="S28.m8",
        role=Role.COORDINATOR,
        needs=("start-database",),
        policy=Policy.BEST_EFFORT,
        timeout_s=120,
        run=steps_networks.recreate_vlans,
        plan=steps_networks.plan_vlans,
        hold_points=("before", "rows-written"),
        why="before S47: a VLAN's PIF without its VLAN object cannot be brought up",
    ),
)

JOBS = (
    Step(
        name="start-network-jobs",
        ref="S42",
        role=Role.ANY,
        needs=("start-scheduler",),
        policy=Policy.BEST_EFFORT,
        timeout_s=30,
        run=steps_networks.start_network_jobs,
        why="after the records, which say which bridges are needed",
    ),
)

NETWORKS = (
    Step(
        name="make-internal-network",
        ref="S46",
        role=Role.COORDINATOR,
        needs=("start-database",),
        policy=Policy.BEST_EFFORT,
        timeout_s=120,
        run=steps_networks.make_internal_network,
        plan=steps_networks.plan_internal_network,
        hold_points=("before", "rows-written"),
        why="before guests are let in, which may be on it",
    ),
    Step(
        name="raise-networks",
        ref="S47",
        role=Role.ANY,
        needs=("find-localhost", "record-attachment"),
        policy=Policy.BEST_EFFORT,
        timeout_s=600,
        run=steps_networks.raise_networks,
        plan=steps_networks.plan_networks,
        hold_points=("before", "plan-begun", "plan-applied", "rows-written"),
        why="after READY, for many networks take long; before the host takes guests, which are on them",
    ),
)
