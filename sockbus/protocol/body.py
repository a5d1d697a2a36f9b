"""Bodies of the bus's own frames: msgpack objects, checked to be what docs/wire.md says before anyone uses them.

Every function raises ProtocolError, and nothing else, for whatever bytes a peer can send. Bodies are small by nature,
and a larger one is refused before it is decoded: 64 KiB of hostile msgpack would become megabytes of objects.
"""

from __future__ import annotations

from typing import Any

import msgpack

from ..errors import ProtocolError
from .frame import PREFIX_BYTES, Kind
from .inbox import Run

__all__ = ["MAX_BODY", "integer", "integers", "mapping", "nothing", "optional_text", "text", "texts"]

MAX_BODY = 4096
_NIL = 0xC0
_NIL_FRAME = PREFIX_BYTES + 1
_MAX_INTEGER = (1 << 64) - 1


def _decode(run: Run) -> Any:
    body = run.body
    if len(body) > MAX_BODY:
        raise ProtocolError(f"the body of a {Kind(run.kind).name} frame has {len(body)} bytes; {MAX_BODY} are allowed")
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"the body of a {Kind(run.kind).name} frame is not msgpack: {error}") from None


def _wrong(run: Run, wanted: str) -> ProtocolError:
    return ProtocolError(f"the body of a {Kind(run.kind).name} frame is not {wanted}; see docs/wire.md")


def _is_integer(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INTEGER


def nothing(run: Run) -> None:
    """A body that is nil."""
    if (run.end - run.start != _NIL_FRAME or run.buffer[run.end - 1] != _NIL) and _decode(run) is not None:
        raise _wrong(run, "nil")


def integer(run: Run) -> int:
    """A body that is one unsigned integer."""
    value = _decode(run)
    if not _is_integer(value):
        raise _wrong(run, "an unsigned integer")
    return int(value)


def integers(run: Run, count: int) -> tuple[int, ...]:
    """A body that is an array of ``count`` unsigned integers."""
    value = _decode(run)
    if not isinstance(value, list) or len(value) != count or not all(map(_is_integer, value)):
        raise _wrong(run, f"an array of {count} unsigned integers")
    return tuple(value)


def texts(run: Run, count: int) -> tuple[str, ...]:
    """A body that is an array of ``count`` strings."""
    value = _decode(run)
    if not isinstance(value, list) or len(value) != count or not all(isinstance(item, str) for item in value):
        raise _wrong(run, f"an array of {count} strings")
    return tuple(value)


def mapping(run: Run) -> dict[str, Any]:
    """A body that is a map with string keys; its values are checked by ``text``, ``member`` and their like."""
    value = _decode(run)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(run, "a map with string keys")
    return value


def text(values: dict[str, Any], key: str) -> str:
    """A string out of a map."""
    value = values.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{key!r} is a {type(value).__name__} where a string belongs; see docs/wire.md")
    return value


def optional_text(values: dict[str, Any], key: str) -> str | None:
    """A string or nil out of a map; nil where the key is absent."""
    return None if values.get(key) is None else text(values, key)


def number(values: dict[str, Any], key: str) -> int:
    """An unsigned integer out of a map."""
    value = values.get(key)
    if not _is_integer(value):
        raise ProtocolError(f"{key!r} is {value!r:.40} where an unsigned integer belongs; see docs/wire.md")
    return int(value)  # type: ignore[arg-type]  # _is_integer has looked


def optional_number(values: dict[str, Any], key: str) -> int | None:
    """An unsigned integer or nil out of a map."""
    return None if values.get(key) is None else number(values, key)


def optional_seconds(values: dict[str, Any], key: str) -> float | None:
    """A number above zero, which may be infinite, or nil out of a map; nil where the key is absent."""
    value = values.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not value > 0:
        raise ProtocolError(f"{key!r} is {value!r:.40} where seconds above 0 belong; see docs/wire.md")
    return float(value)


def numbers(values: dict[str, Any], key: str, count: int) -> tuple[int, ...]:
    """An array of ``count`` unsigned integers out of a map."""
    value = values.get(key)
    if not isinstance(value, list) or len(value) != count or not all(map(_is_integer, value)):
        raise ProtocolError(f"{key!r} is not an array of {count} unsigned integers; see docs/wire.md")
    return tuple(value)


def submap(values: dict[str, Any], key: str) -> dict[str, Any]:
    """A map with string keys out of a map."""
    value = values.get(key)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ProtocolError(f"{key!r} is a {type(value).__name__} where a map belongs; see docs/wire.md")
    return value


def words(values: dict[str, Any], key: str) -> tuple[str, ...]:
    """An array of strings out of a map; empty where the key is absent."""
    value = values.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ProtocolError(f"{key!r} is not an array of strings; see docs/wire.md")
    return tuple(value)
