"""Extensions of certificates: TcbInfo and MultiTcbInfo, UEID, the purposes of a key.

Written for the verifier alone: what it verifies has its own, so that a mistake on one side shows as a disagreement.
Nothing here judges.

Sources: TCG DICE Attestation Architecture 1.2, 6.1, with Errata 1.0; RFC 5280, 4.2.1.12.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from endocarp.errors import DecodeError
from endocarp.wire import der

TCB_INFO = "2.23.133.5.4.1"
UEID = "2.23.133.5.4.4"
PURPOSES = "2.5.29.37"
MULTI_TCB_INFO = "2.23.133.5.4.5"

_SHA384 = "2.16.840.1.101.3.4.2.2"
_DIGEST_SIZE = 48


@dataclass(frozen=True)
class TcbInfo:
    """What a certificate says of one piece of software; what it leaves out is None or empty.

    `fwids` and `registers` hold SHA-384 digests only, in their order and by their number.
    """

    svn: int | None = None
    fwids: tuple[bytes, ...] = ()
    vendor_info: bytes = b""
    kind: bytes = b""
    registers: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def fwid(self) -> bytes:
        """The one digest, or nothing where there are none or several."""
        return self.fwids[0] if len(self.fwids) == 1 else b""


# The fields of DiceTcbInfo by their tags; all are implicit. Those without a reader are allowed and not looked at.
_SVN, _FWIDS, _VENDOR_INFO, _TYPE, _REGISTERS = 3, 6, 8, 9, 11
_FIELDS = 12
_CONSTRUCTED = (_FWIDS, _REGISTERS)
_REGISTER_NUMBER, _REGISTER_DIGESTS = 1, 2


def read_tcb_info(octets: bytes) -> TcbInfo:
    """Read the extension TcbInfo. Raises DecodeError."""
    reader = der.Reader(octets, "TcbInfo")
    info = _tcb_info(reader.sequence())
    reader.end()
    return info


def read_multi_tcb_info(octets: bytes) -> tuple[TcbInfo, ...]:
    """Read the extension MultiTcbInfo. Raises DecodeError."""
    reader = der.Reader(octets, "MultiTcbInfo")
    entries = reader.sequence()
    reader.end()
    found = []
    while entries:
        found.append(_tcb_info(entries.sequence()))
    return tuple(found)


def read_ueid(octets: bytes) -> bytes:
    """Read the extension UEID. Raises DecodeError."""
    reader = der.Reader(octets, "Ueid")
    inside = reader.sequence()
    reader.end()
    ueid = inside.octet_string()
    inside.end()
    return ueid


def read_purposes(octets: bytes) -> frozenset[str]:
    """Read the extension ExtendedKeyUsage. Raises DecodeError."""
    reader = der.Reader(octets, "ExtendedKeyUsage")
    inside = reader.sequence()
    reader.end()
    purposes = []
    while inside:
        purposes.append(inside.oid())
    return frozenset(purposes)


def _tcb_info(reader: der.Reader) -> TcbInfo:
    fields: dict[int, bytes] = {}
    for number in range(_FIELDS):
        tag = der.context_tag(number, constructed=number in _CONSTRUCTED)
        if reader.peek() == tag:
            fields[number] = reader.content(tag)
    reader.end()
    return TcbInfo(
        svn=_integer(fields[_SVN]) if _SVN in fields else None,
        fwids=_fwids(fields.get(_FWIDS, b"")),
        vendor_info=fields.get(_VENDOR_INFO, b""),
        kind=fields.get(_TYPE, b""),
        registers=_registers_of(fields.get(_REGISTERS, b"")),
    )


def _integer(content: bytes) -> int:
    return der.Reader(der.tlv(der.INTEGER, content), "TcbInfo.svn").integer()


def _fwids(content: bytes) -> tuple[bytes, ...]:
    reader = der.Reader(content, "TcbInfo.fwids")
    found = []
    while reader:
        fwid = reader.sequence()
        algorithm, digest = fwid.oid(), fwid.octet_string()
        fwid.end()
        if algorithm != _SHA384 or len(digest) != _DIGEST_SIZE:
            raise DecodeError("TcbInfo.fwids", f"{len(digest)} octets by {algorithm}, not a SHA-384 digest")
        found.append(digest)
    return tuple(found)


def _registers_of(content: bytes) -> dict[int, bytes]:
    reader = der.Reader(content, "TcbInfo.integrityRegisters")
    found: dict[int, bytes] = {}
    while reader:
        register = reader.sequence()
        number = _integer(register.content(der.context_tag(_REGISTER_NUMBER, constructed=False)))
        digests = _fwids(register.content(der.context_tag(_REGISTER_DIGESTS, constructed=True)))
        register.end()
        if len(digests) != 1 or number in found:
            raise DecodeError("TcbInfo.integrityRegisters", "not one digest a register")
        found[number] = digests[0]
    return found
