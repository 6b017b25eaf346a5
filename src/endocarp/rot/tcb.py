"""TcbInfo: what a certificate says of the software behind its key.

Source: TCG DICE Attestation Architecture 1.2, 6.1.1, with Errata 1.0.
"""

from dataclasses import dataclass

from endocarp.crypto.certs import extension
from endocarp.wire import der

TCB_INFO = "2.23.133.5.4.1"
MULTI_TCB_INFO = "2.23.133.5.4.5"
_SHA384 = der.oid("2.16.840.1.101.3.4.2.2")

_SVN, _FWIDS, _VENDOR_INFO, _TYPE, _INTEGRITY_REGISTERS = 3, 6, 8, 9, 11
_REGISTER_NUMBER, _REGISTER_DIGESTS = 1, 2


@dataclass(frozen=True)
class TcbInfo:
    """One component: what it is called, what was measured of it, and which version it says it has.

    `svn` is the content of an INTEGER. `cumulative` is the digest over all measurements of the component, and
    stands in integrity register 0. What is None is left out.
    """

    fwid: bytes
    type: bytes
    svn: bytes | None = None
    vendor_info: bytes | None = None
    cumulative: bytes | None = None

    def der(self) -> bytes:
        """Return the DiceTcbInfo, DER."""
        return der.sequence(
            _optional(_SVN, self.svn),
            der.context(_FWIDS, _fwid(self.fwid), constructed=True),
            _optional(_VENDOR_INFO, self.vendor_info),
            _optional(_TYPE, self.type),
            b"" if self.cumulative is None else _integrity_register(self.cumulative),
        )


def fixed_svn(svn: int) -> bytes:
    """Return an SVN as Caliptra's certificates hold it: 0x100 + SVN, so that it always has two octets."""
    return (0x100 | svn).to_bytes(2, "big")


def natural_svn(svn: int) -> bytes:
    """Return an SVN as DPE's certificates hold it: an INTEGER of the least octets."""
    return svn.to_bytes(svn.bit_length() // 8 + 1, "big")


def tcb_info(component: TcbInfo) -> bytes:
    """Return the extension about one component."""
    return extension(TCB_INFO, component.der())


def multi_tcb_info(components: list[TcbInfo]) -> bytes:
    """Return the extension about several components, in their order."""
    return extension(MULTI_TCB_INFO, der.sequence(*(component.der() for component in components)))


def _optional(number: int, content: bytes | None) -> bytes:
    return b"" if content is None else der.context(number, content, constructed=False)


def _fwid(digest: bytes) -> bytes:
    return der.sequence(_SHA384, der.octet_string(digest))


def _integrity_register(digest: bytes) -> bytes:
    # TCG DICE Attestation Architecture 1.2, Errata 1.0: field 11; 1.2 itself gave it 10, which 1.1 has for flagsMask.
    register = der.sequence(
        der.context(_REGISTER_NUMBER, b"\x00", constructed=False),
        der.context(_REGISTER_DIGESTS, _fwid(digest), constructed=True),
    )
    return der.context(_INTEGRITY_REGISTERS, register, constructed=True)
