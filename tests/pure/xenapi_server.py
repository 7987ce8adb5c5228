"""A dispatcher of XenAPI calls over a small database, as the daemon has it."""

from __future__ import annotations

import json

import pytest

from hostagent.api import roles
from hostagent.api.core import Core, Peer
from hostagent.api.dispatch import Dispatcher
from hostagent.api.events import Events
from hostagent.api.fault import CallError
from hostagent.api.rendered import Rendered
from hostagent.api.tasks import Tasks
from hostagent.api.xenapi_calls import IMPLEMENTED
from hostagent.db.database import open_database
from hostagent.db.model import load
from tests.pure.api_server import SECRET, USERS, authenticate

MODEL = load()
LOCAL, REMOTE = Peer(trusted=True), Peer(address="192.0.2.7")


class Server:
    """A dispatcher over a database, as the daemon has it."""

    def __init__(self, directory, more=()):
        self.db = open_database(directory / "state.db", directory / "volatile.db")
        with self.db.write() as w:
            roles.write_records(w)
            self.host = w.create("host", {"metrics": w.create("host_metrics", {}), "uuid": "host-uuid"})
            self.pool = w.create("pool", {"master": self.host})
        self.core = Core(
            authenticate,
            lambda: [SECRET],
            host_uuid="host-uuid",
            database=self.db,
            tasks=Tasks(self.db),
            events=Events(self.db),
        )
        self.dispatcher = Dispatcher(self.core, (*IMPLEMENTED, *more))

    async def call(self, name, *params, peer=LOCAL):
        value = (await self.dispatcher.call(name, params, peer)).value
        return json.loads(value.text) if isinstance(value, Rendered) else value

    async def fails(self, name, *params, peer=LOCAL):
        with pytest.raises(CallError) as caught:
            await self.call(name, *params, peer=peer)
        return [caught.value.code, *caught.value.params]

    async def log_in(self, user="root", *more, peer=LOCAL):
        return await self.call("session.login_with_password", user, USERS[user][0], *more, peer=peer)
