"""Payloads and headers to msgpack and back.

A payload is one msgpack object that the bus never looks into; headers are a small flat map that the broker
checks. Every failure is a PayloadError: nothing of msgpack's own errors, which are many, gets out of this room.
"""

from __future__ import annotations

import threading
from typing import Any

import msgpack

from .errors import MessageTooLarge, PayloadError

__all__ = ["NIL", "HeaderValue", "Headers", "decode_headers", "decode_payload", "encode_headers", "encode_payload"]

HeaderValue = str | int | float | bool | bytes
Headers = dict[str, HeaderValue]
#: the payload None
NIL = b"\xc0"

# A Packer keeps the largest buffer that it ever needed; beyond this size it is given back.
_KEPT_BYTES = 1 << 20
_SCALARS = (str, int, float, bytes)
_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_DECODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, msgpack.exceptions.UnpackException)


class _Local(threading.local):
    """A Packer for each thread: reusing one makes small payloads three times as fast, sharing one tears."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.pack = msgpack.Packer(use_bin_type=True).pack


_local = _Local()


def encode_payload(payload: object) -> bytes:
    """msgpack bytes of a payload: None, bool, int, float, str, bytes, and lists, tuples and dicts of them.

    Raises PayloadError, which names the reason.
    """
    try:
        data: bytes = _local.pack(payload)
    except _ENCODE_ERRORS as error:
        raise PayloadError(
            f"the payload cannot be encoded: {error}; msgpack takes None, bool, int, float, str, bytes, "
            f"and lists and dicts of them"
        ) from error
    if len(data) > _KEPT_BYTES:
        _local.renew()
    return data


def decode_payload(data: bytes) -> Any:
    """The object that msgpack bytes stand for; PayloadError when they are not msgpack."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except _DECODE_ERRORS as error:
        raise PayloadError(
            f"the payload of {len(data)} bytes is not valid msgpack: {error}; its raw bytes are in .data"
        ) from error


def encode_headers(headers: Headers, max_bytes: int, max_keys: int) -> bytes:
    """msgpack bytes of headers.

    PayloadError when a key or value is not of the allowed types, MessageTooLarge when there are too many.
    """
    _check_headers(headers)
    if len(headers) > max_keys:
        raise MessageTooLarge(
            f"{len(headers)} headers exceed header_keys = {max_keys}; put data into the payload, "
            f"or raise it with --limit header_keys=N at the broker"
        )
    try:
        data: bytes = _local.pack(headers)
    except _ENCODE_ERRORS as error:
        raise PayloadError(f"the headers cannot be encoded: {error}; use plain strings and numbers") from error
    if len(data) > max_bytes:
        raise MessageTooLarge(
            f"headers of {len(data)} bytes exceed header_bytes = {max_bytes}; put data into the payload, "
            f"or raise it with --limit header_bytes=N at the broker"
        )
    return data


def decode_headers(data: bytes, max_keys: int) -> Headers:
    """Headers from the wire; PayloadError when they are not a flat map of at most ``max_keys`` keys."""
    try:
        headers = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_map_len=max_keys, max_array_len=0, max_ext_len=0
        )
    except _DECODE_ERRORS as error:
        raise PayloadError(
            f"headers are not a flat msgpack map of at most {max_keys} keys: {error}; see docs/wire.md"
        ) from error
    _check_headers(headers)
    return headers  # type: ignore[no-any-return]  # _check_headers has looked


def _check_headers(headers: object) -> None:
    if not isinstance(headers, dict):
        raise PayloadError(f"headers are a {type(headers).__name__}, not a map; see docs/wire.md")
    for key, value in headers.items():
        if not isinstance(key, str):
            raise PayloadError(f"header key {key!r} is not a string; name headers with strings")
        if not isinstance(value, _SCALARS):
            raise PayloadError(
                f"header {key[:80]!r} is a {type(value).__name__}; headers are str, int, float, bool or bytes"
            )
