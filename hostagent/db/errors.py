"""What the database refuses, with the codes and parameters that XenAPI has for it (xenapi.md 1.7)."""

from __future__ import annotations

from hostagent.errors import BugError, CallerError, OperatorError


class HandleInvalidError(CallerError):
    """No object of that class has that reference. HANDLE_INVALID [class; reference]."""

    code = "HANDLE_INVALID"

    def __init__(self, cls: str, ref: str) -> None:
        super().__init__(f"there is no {cls} {ref}", hint=f"list them: {cls}.get_all", params=(cls, ref))


class UuidInvalidError(CallerError):
    """No object of that class has that uuid. UUID_INVALID [class; uuid]."""

    code = "UUID_INVALID"

    def __init__(self, cls: str, uuid: str) -> None:
        super().__init__(
            f"there is no {cls} with uuid {uuid}",
            hint=f"list them: {cls}.get_all_records",
            params=(cls, uuid),
        )


class MapDuplicateKeyError(CallerError):
    """The key is there with another value. MAP_DUPLICATE_KEY [class; field; reference; key]."""

    code = "MAP_DUPLICATE_KEY"

    def __init__(self, cls: str, field: str, ref: str, key: str) -> None:
        super().__init__(
            f"{cls}.{field} of {ref} already has '{key}' with another value",
            hint=f"remove it first: {cls}.remove_from_{field}",
            params=(cls, field, ref, key),
        )


class NotUniqueError(CallerError):
    """Another object has that uuid or reference. DB_UNIQUENESS_CONSTRAINT_VIOLATION [class; field; value]."""

    code = "DB_UNIQUENESS_CONSTRAINT_VIOLATION"

    def __init__(self, cls: str, field: str, value: str) -> None:
        super().__init__(
            f"another object has the {field} {value}",
            hint="leave it out: one is made",
            params=(cls, field, value),
        )


class FieldTypeError(CallerError):
    """A value is not of its field's type. FIELD_TYPE_ERROR [field]."""

    code = "FIELD_TYPE_ERROR"

    def __init__(self, field: str, wanted: str) -> None:
        super().__init__(f"{field} wants {wanted}", hint="send a value of that type", params=(field,))


class NoSuchFieldError(BugError):
    """Our own code names a class or field that the data model does not have, or that is computed."""


class DatabaseError(OperatorError):
    """The database file cannot be used: damaged, unreadable, of a newer version, disk full."""


class InUseError(DatabaseError):
    """Another process has the database open."""


class NewerSchemaError(DatabaseError):
    """A newer hostagent wrote the file; it has not been touched."""


class DamagedError(DatabaseError):
    """SQLite finds the file damaged."""
