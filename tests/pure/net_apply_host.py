"""What a plan is carried out on in tests: a kernel and files, and the tools that change them."""

from __future__ import annotations

from hostagent.errors import KernelError
from hostagent.net.apply import Tools


class Host:
    """A kernel and files, with tools that change them; `fails` names an operation that does not work."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.sysctls = {}
        self.resolver = "old\n"
        self.held = []
        self.fails = None

    def look(self):
        return self.kernel.look()

    def execute(self, operations):
        self.kernel.execute(operations)

    def write(self, path, value):
        if self.fails and self.fails in path:
            raise KernelError("no such file", hint="")
        self.sysctls[path] = value

    def resolve(self, text, _bridge):
        if self.fails == "dns" and text != "old\n":
            raise KernelError("read-only", hint="remount it")
        self.resolver = text

    def nothing(self, *_):
        raise AssertionError("not in these plans")

    def tools(self):
        return Tools(
            self, self.write, self.nothing, self.nothing, self.nothing, self.resolve, self.held.append
        )
