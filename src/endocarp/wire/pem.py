"""PEM (RFC 7468): DER objects as text, one after another, each between lines that name its kind."""

import base64
import binascii
import re

from endocarp.errors import DecodeError

CERTIFICATE = "CERTIFICATE"

LIMIT = 1 << 20
"""Characters of a text at most."""

_OBJECT = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 ]{1,40})-----"
)


def encode(label: str, octets: bytes) -> str:
    """Return one object as text, 64 characters a line."""
    body = base64.b64encode(octets).decode("ascii")
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def decode(label: str, text: str) -> tuple[bytes, ...]:
    """Return the objects of this kind, in their order; text around them and other kinds are passed over.

    Raises DecodeError where an object is damaged or there is none.
    """
    if len(text) > LIMIT:
        raise DecodeError("PEM", f"{len(text)} characters, at most {LIMIT}")
    found = []
    for begin, body, end in _OBJECT.findall(text):
        if begin != end:
            raise DecodeError("PEM", f"begins as {begin}, ends as {end}")
        if begin == label:
            found.append(_base64("".join(body.split())))
    if not found:
        raise DecodeError("PEM", f"no {label} in it")
    return tuple(found)


def _base64(body: str) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise DecodeError("PEM", "no base64 between its lines") from None
