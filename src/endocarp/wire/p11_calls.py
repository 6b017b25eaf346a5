"""The calls of p11-kit's RPC: the number of each function, and the values of its request and reply.

The body of a call is `u32 number | u32 size | signature | values`, the body of its reply the same; the signature
spells the types of the values. A failure is a reply with number 0 and one CK_ULONG, the CK_RV.
"""

import enum
import functools
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from endocarp.errors import DecodeError
from endocarp.wire.p11 import DIALECT_LIMIT, NULL, Reader, Writer, byte_room

Values = tuple[Any, ...]


class Call(enum.IntEnum):
    """The functions of PKCS#11 that travel, with the signatures of their requests and replies.

    The types: y octet, u CK_ULONG, v CK_VERSION, s text of fixed size, z text, ay octets, au numbers, fy room for
    octets, fu room for numbers, aA template or attributes, fA questions for attributes, M mechanism, P its change.
    """

    request: str
    reply: str

    def __new__(cls, number: int, request: str, reply: str = "") -> "Call":
        """Make a member whose value is the number alone."""
        call = int.__new__(cls, number)
        call._value_ = number
        call.request = request
        call.reply = reply
        return call

    C_Initialize = 1, "ayyay"
    C_Finalize = 2, ""
    C_GetInfo = 3, "", "vsusv"
    C_GetSlotList = 4, "yfu", "au"
    C_GetSlotInfo = 5, "u", "ssuvv"
    C_GetTokenInfo = 6, "u", "ssssuuuuuuuuuuuvvs"
    C_GetMechanismList = 7, "ufu", "au"
    C_GetMechanismInfo = 8, "uu", "uuu"
    C_InitToken = 9, "uayz"
    C_OpenSession = 10, "uu", "u"
    C_CloseSession = 11, "u"
    C_CloseAllSessions = 12, "u"
    C_GetSessionInfo = 13, "u", "uuuu"
    C_InitPIN = 14, "uay"
    C_SetPIN = 15, "uayay"
    C_GetOperationState = 16, "ufy", "ay"
    C_SetOperationState = 17, "uayuu"
    C_Login = 18, "uuay"
    C_Logout = 19, "u"
    C_CreateObject = 20, "uaA", "u"
    C_CopyObject = 21, "uuaA", "u"
    C_DestroyObject = 22, "uu"
    C_GetObjectSize = 23, "uu", "u"
    C_GetAttributeValue = 24, "uufA", "aAu"
    C_SetAttributeValue = 25, "uuaA"
    C_FindObjectsInit = 26, "uaA"
    C_FindObjects = 27, "ufu", "au"
    C_FindObjectsFinal = 28, "u"
    C_EncryptInit = 29, "uMu"
    C_Encrypt = 30, "uayfy", "ay"
    C_EncryptUpdate = 31, "uayfy", "ay"
    C_EncryptFinal = 32, "ufy", "ay"
    C_DecryptInit = 33, "uMu"
    C_Decrypt = 34, "uayfy", "ay"
    C_DecryptUpdate = 35, "uayfy", "ay"
    C_DecryptFinal = 36, "ufy", "ay"
    C_DigestInit = 37, "uM"
    C_Digest = 38, "uayfy", "ay"
    C_DigestUpdate = 39, "uay"
    C_DigestKey = 40, "uu"
    C_DigestFinal = 41, "ufy", "ay"
    C_SignInit = 42, "uMu"
    C_Sign = 43, "uayfy", "ay"
    C_SignUpdate = 44, "uay"
    C_SignFinal = 45, "ufy", "ay"
    C_SignRecoverInit = 46, "uMu"
    C_SignRecover = 47, "uayfy", "ay"
    C_VerifyInit = 48, "uMu"
    C_Verify = 49, "uayay"
    C_VerifyUpdate = 50, "uay"
    C_VerifyFinal = 51, "uay"
    C_VerifyRecoverInit = 52, "uMu"
    C_VerifyRecover = 53, "uayfy", "ay"
    C_DigestEncryptUpdate = 54, "uayfy", "ay"
    C_DecryptDigestUpdate = 55, "uayfy", "ay"
    C_SignEncryptUpdate = 56, "uayfy", "ay"
    C_DecryptVerifyUpdate = 57, "uayfy", "ay"
    C_GenerateKey = 58, "uMaA", "u"
    C_GenerateKeyPair = 59, "uMaAaA", "uu"
    C_WrapKey = 60, "uMuufy", "ay"
    C_UnwrapKey = 61, "uMuayaA", "u"
    C_DeriveKey = 62, "uMuaA", "u"
    C_SeedRandom = 63, "uay"
    C_GenerateRandom = 64, "ufy", "ay"
    C_WaitForSlotEvent = 65, "u", "u"
    # PKCS#11 3.0, sent by clients since 0.25 whatever the dialect.
    C_LoginUser = 66, "uuayay"
    C_SessionCancel = 67, "uu"
    C_MessageEncryptInit = 68, "uMu"
    C_EncryptMessage = 69, "uayayayfy", "ay"
    C_EncryptMessageBegin = 70, "uayay"
    C_EncryptMessageNext = 71, "uayayfyu", "ay"
    C_MessageEncryptFinal = 72, "u"
    C_MessageDecryptInit = 73, "uMu"
    C_DecryptMessage = 74, "uayayayfy", "ay"
    C_DecryptMessageBegin = 75, "uayay"
    C_DecryptMessageNext = 76, "uayayfyu", "ay"
    C_MessageDecryptFinal = 77, "u"
    C_MessageSignInit = 78, "uMu"
    C_SignMessage = 79, "uayayfy", "ay"
    C_SignMessageBegin = 80, "uay"
    C_SignMessageNext = 81, "uayayyfy", "ay"
    C_MessageSignFinal = 82, "u"
    C_MessageVerifyInit = 83, "uMu"
    C_VerifyMessage = 84, "uayayay"
    C_VerifyMessageBegin = 85, "uay"
    C_VerifyMessageNext = 86, "uayayay"
    C_MessageVerifyFinal = 87, "u"
    C_InitToken2 = 88, "uays"
    """C_InitToken from dialect 1 on."""
    C_DeriveKey2 = 89, "uMuaA", "uPu"
    """C_DeriveKey from dialect 2 on."""


class _Field(NamedTuple):
    """How the values of one type are read and written."""

    read: Callable[[Reader], Any]
    write: Callable[[Writer, Any], bytes]


_FIELDS = {
    "y": _Field(Reader.byte, Writer.byte),
    "u": _Field(Reader.ulong, Writer.ulong),
    "v": _Field(Reader.version, Writer.version),
    "s": _Field(Reader.octets, Writer.octets),
    "z": _Field(Reader.octets, Writer.octets),
    "ay": _Field(Reader.byte_array, Writer.byte_array),
    "au": _Field(Reader.ulong_array, Writer.ulong_array),
    "fy": _Field(Reader.byte_room, Writer.byte_room),
    "fu": _Field(Reader.ulong_room, Writer.ulong_room),
    "aA": _Field(Reader.attributes, Writer.attributes),
    "fA": _Field(Reader.attribute_rooms, Writer.attribute_rooms),
    "M": _Field(Reader.mechanism, Writer.mechanism),
    # Only the 0 that says that nothing changed; the others belong to mechanisms of IBM's.
    "P": _Field(Reader.byte, Writer.byte),
}
_U32 = struct.Struct(">I")
_DATA = struct.Struct(">QBI")
"""A session, and the beginning of octets."""
_WRITERS = [Writer(dialect) for dialect in range(DIALECT_LIMIT + 1)]
_CALL = struct.Struct(">II")


_SAME_AGAIN = frozenset({"y", "u", "M", "fy", "fu"})
"""The types of values that a caller gives again and again, and that are no secret."""
_SHORT = 64


class _Form:
    """The form of one request or reply.

    Who signs often begins each signature with the same octets: so a short body that tells nothing but numbers and a
    mechanism is remembered with its values.
    """

    def __init__(self, number: int, signature: str) -> None:
        names = re.findall("[af]?.", signature)
        fields = [_FIELDS[name] for name in names]
        self.head = _CALL.pack(number, len(signature)) + signature.encode("ascii")
        self.reads = [field.read for field in fields]
        self.writes = [field.write for field in fields]
        self.longest_remembered = _SHORT if _SAME_AGAIN.issuperset(names) else 0
        self.remembered = functools.lru_cache(self.decode)

    def decode(self, body: bytes, dialect: int, where: str) -> Values:
        if not body.startswith(self.head):
            raise DecodeError(where, "the signature is not the call's")
        reader = Reader(body, len(self.head), dialect, where)
        values = tuple([read(reader) for read in self.reads])
        reader.end()
        return values

    def encode(self, values: Values, dialect: int) -> bytes:
        if not values and not self.writes:
            return self.head
        writer = _WRITERS[dialect]
        body = self.head
        for write, value in zip(self.writes, values, strict=True):
            body += write(writer, value)
        return body


class _DataForm(_Form):
    """The form of a request that gives data and room for its result, as C_Sign does: read in two steps, not by field."""

    def decode(self, body: bytes, dialect: int, where: str) -> Values:
        if not body.startswith(self.head):
            raise DecodeError(where, "the signature is not the call's")
        start = len(self.head) + _DATA.size
        try:
            session, valid, size = _DATA.unpack_from(body, len(self.head))
            end = start + size if valid and size != NULL else start
            (room,) = _U32.unpack_from(body, end)
        except struct.error:
            raise DecodeError(where, "cut short") from None
        if end + _U32.size != len(body):
            raise DecodeError(where, f"{len(body) - end - _U32.size} octets left over")
        return session, body[start:end] if valid else size, byte_room(room)


class _ResultForm(_Form):
    """The form of a reply of octets alone, as that of C_Sign: written in one step."""

    def encode(self, values: Values, dialect: int) -> bytes:
        (result,) = values
        return self.head + _WRITERS[dialect].byte_array(result)


# What a signature passes through; tests hold both against the general form.
_QUICK_FORMS = {"uayfy": _DataForm, "ay": _ResultForm}


def _form(call: Call, signature: str) -> _Form:
    return _QUICK_FORMS.get(signature, _Form)(call, signature)


_REQUESTS = {call: _form(call, call.request) for call in Call}
_REPLIES = {call: _form(call, call.reply) for call in Call}
_FAILURE = _Form(0, "u")
_NAMES = {call: call.name for call in Call}


_CALLS = {_U32.pack(call): (call, _REQUESTS[call], call.name) for call in Call}


def decode_request(body: bytes, dialect: int) -> tuple[Call | None, Values]:
    """Return the call that a request makes, and its values; no call where there is none of its number."""
    known = _CALLS.get(body[:4])
    if known is None:
        _number(body)  # raises where it is cut short
        return None, ()
    call, form, where = known
    if len(body) <= form.longest_remembered:
        return call, form.remembered(body, dialect, where)
    return call, form.decode(body, dialect, where)


def _number(body: bytes) -> int:
    try:
        return int(_CALL.unpack_from(body)[0])
    except struct.error:
        raise DecodeError("Call", "cut short") from None


def encode_request(call: Call, values: Values, dialect: int) -> bytes:
    """Return the body of a request."""
    return _REQUESTS[call].encode(values, dialect)


def decode_reply(call: Call, body: bytes, dialect: int) -> Values | int:
    """Return the values of the reply to `call`, or the CK_RV of its failure."""
    if _number(body) == 0:
        (value,) = _FAILURE.decode(body, dialect, "failure")
        return int(value)
    return _REPLIES[call].decode(body, dialect, _NAMES[call])


def encode_reply(call: Call, values: Values, dialect: int) -> bytes:
    """Return the body of the reply to `call`."""
    return _REPLIES[call].encode(values, dialect)


def encode_failure(number: int, dialect: int) -> bytes:
    """Return the body that answers any call with a CK_RV other than CKR_OK."""
    return _FAILURE.encode((number,), dialect)
