"""The API as the xe command calls it, over a real database: the generated messages work, other calls are kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hostagent.errors import HostagentError
from hostagent.xe.arguments import Options, parse
from hostagent.xe.session import ApiError
from hostagent.xe.shell import run
from hostagent.xe.terminal import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostagent.db.database import Database


class DatabaseApi:
    """Generated messages act on the database; `answers` has what other methods give; `calls` has all of them."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.acted: list[tuple[Any, ...]] = []

    def call(self, method: str, *params: Any) -> Any:
        self.calls.append((method, *params))
        if method in self.answers:
            self.acted.append((method, *params))
            answer = self.answers[method]
            if isinstance(answer, ApiError):
                raise answer
            return answer(*params) if callable(answer) else answer
        message = self.db.model.message(method)
        assert message is not None, f"{method} is not in the data model"
        fields = self.db.model.cls(message.cls).fields
        setter = message.name.startswith("set_") and message.name.removeprefix("set_") in fields
        if not message.generated and not setter and not message.name.startswith("get_"):
            assert len(params) == len(message.params), (method, params)
            self.acted.append((method, *params))
            return ""
        try:
            return self._generated(message.cls, message.name, *params)
        except HostagentError as error:
            raise ApiError(error.code, error.params) from error

    def _generated(self, cls: str, name: str, *params: Any) -> Any:
        fixed: dict[str, Any] = {
            "get_all_records": lambda view: dict(view.records(cls)),
            "get_record": lambda view: view.record(cls, params[0]),
            "get_by_uuid": lambda view: view.by_uuid(cls, params[0]),
        }
        if name in fixed or name.startswith("get_"):
            with self.db.read() as view:
                return fixed[name](view) if name in fixed else view.get(cls, params[0], name[4:])
        self.acted.append((f"{cls}.{name}", *params))
        with self.db.write() as w:
            if name == "create":
                return w.create(cls, {k: v for k, v in params[0].items() if k != "uuid"})
            if name == "destroy":
                return w.destroy(cls, params[0])
            for prefix, change in (
                ("add_to_", w.add_to_map),
                ("remove_from_", w.remove_from_map),
                ("set_", w.set),
                ("add_", w.add_to_set),
                ("remove_", w.remove_from_set),
            ):
                if name.startswith(prefix):
                    change(cls, params[0], name.removeprefix(prefix), *params[1:])
                    return ""
        raise AssertionError(name)


class FakeTerminal:
    """Keeps what is printed; `files` can be read, `replies` are what the person types."""

    def __init__(self, *replies: str, files: dict[str, bytes] | None = None) -> None:
        self.out = ""
        self.err = ""
        self.replies = list(replies)
        self.files = files or {}

    def print(self, text: str) -> None:
        self.out += text + "\n"

    def print_error(self, text: str) -> None:
        self.err += text + "\n"

    def error(self, code: str, params: Any) -> None:
        self.print_error(f"Error code: {code}\nError parameters: {', '.join(params)}")

    def read_file(self, name: str) -> bytes:
        if name not in self.files:
            raise TerminalError(f"{name}: No such file or directory")
        return self.files[name]

    def prompt(self, text: str) -> str:
        self.print(text)
        if not self.replies:
            raise TerminalError("nobody")
        return self.replies.pop(0)

    def check(self) -> None:
        if not self.replies:
            raise TerminalError("the client has left")
        self.replies.pop(0)


class Xe:
    """Types xe commands: `xe("host-list", "--minimal")` gives the exit status; `out` and `err` hold the texts."""

    def __init__(self, db: Database, refs: dict[str, str]) -> None:
        self.db = db
        self.refs = refs
        self.api = DatabaseApi(db)
        self.out = self.err = ""
        self.sessions: list[bool] = []

    @contextlib.contextmanager
    def connect(self, local: bool) -> Iterator[DatabaseApi]:  # noqa: FBT001
        self.sessions.append(local)
        yield self.api

    def __call__(
        self, *words: str, replies: tuple[str, ...] = (), files: dict[str, bytes] | None = None
    ) -> int:
        options, arguments = parse(words)
        assert isinstance(options, Options)
        terminal = FakeTerminal(*replies, files=files)
        status = run(arguments, self.connect, terminal)
        self.out, self.err = terminal.out, terminal.err
        return status

    def did(
        self, *words: str, replies: tuple[str, ...] = (), files: dict[str, bytes] | None = None
    ) -> list[Any]:
        """The calls that changed something, of a command that must succeed."""
        self.api.acted.clear()
        assert self(*words, replies=replies, files=files) == 0, self.err
        return list(self.api.acted)


def small_pool(db: Database) -> dict[str, str]:
    """A host with two NICs on one network, an SR and a few VMs; short name → reference. Uuids are `u-NAME`."""
    refs: dict[str, str] = {}
    with db.write() as w:

        def make(name: str, cls: str, **values: object) -> str:
            refs[name] = w.create(cls, {"uuid": f"u-{name}", **values})
            return refs[name]

        host = make(
            "host",
            "host",
            name_label="alpha",
            hostname="alpha.lan",
            cpu_info={"vendor": "X", "speed": "2400"},
        )
        make("pool", "pool", name_label="lab", master=host)
        net = make("net", "network", name_label="lan", bridge="xenbr0", tags=["a", "b,c"])
        for place in (0, 1):
            make(
                f"pif{place}",
                "PIF",
                host=host,
                network=net,
                device=f"eth{place}",
                MAC=f"52:54:00:12:34:5{place}",
                VLAN=-1,
                MTU=1500,
                currently_attached=place == 0,
            )
        sr = make("sr", "SR", name_label="disks", type="ext", content_type="user")
        make(
            "pbd",
            "PBD",
            host=host,
            SR=sr,
            device_config={"device": "/dev/sdb", "x": "y"},
            currently_attached=True,
        )
        make("dom0", "VM", name_label="dom0", is_control_domain=True, power_state="Running", resident_on=host)
        make("vm1", "VM", name_label="web", power_state="Running", resident_on=host, domid=7)
        make("vm2", "VM", name_label="web", power_state="Halted")
        make("template", "VM", name_label="debian", is_a_template=True)
        make("snapshot", "VM", name_label="before", is_a_snapshot=True, is_a_template=True)
        make("task", "task", name_label="copy", progress=0.5, status="pending")
    return refs
