"""Records that several tests of the database begin with."""

from __future__ import annotations


def make_host(db):
    with db.write() as w:
        return w.create("host", {"metrics": w.create("host_metrics", {}), "hostname": "h"})


def make_pif(w, host, network, **more):
    values = {"host": host, "network": network, "metrics": w.create("PIF_metrics", {}), "VLAN": -1, **more}
    return w.create("PIF", values)
