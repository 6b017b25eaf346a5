"""TcbInfo, octet by octet."""

import pytest

from endocarp.rot.tcb import TcbInfo, fixed_svn, multi_tcb_info, natural_svn, tcb_info
from endocarp.wire import der

DIGEST = bytes(range(48))
FWID = bytes.fromhex("303d0609608648016503040202") + b"\x04\x30" + DIGEST


def test_a_component_has_the_octets_of_the_specification() -> None:
    info = TcbInfo(
        fwid=DIGEST, type=b"TYPE", svn=b"\x01\x05", vendor_info=b"\0\0\0\1", cumulative=DIGEST[::-1]
    )
    register = b"\x81\x01\x00\xa2\x3f" + FWID[:-48] + DIGEST[::-1]
    assert info.der() == der.sequence(
        b"\x83\x02\x01\x05",
        b"\xa6\x3f" + FWID,
        b"\x88\x04\0\0\0\1",
        b"\x89\x04TYPE",
        b"\xab\x46\x30\x44" + register,
    )


def test_what_is_unknown_is_left_out() -> None:
    assert TcbInfo(fwid=DIGEST, type=b"T").der() == der.sequence(b"\xa6\x3f" + FWID, b"\x89\x01T")


def test_the_extensions_of_alias_certificates_are_as_large_as_the_real_ones() -> None:
    # Caliptra, redacted golden certificates: 302 octets in the FMC alias, 102 in the RT alias.
    def content(extension: bytes) -> bytes:
        reader = der.Reader(extension, "test").sequence()
        reader.oid()
        return reader.octet_string()

    fmc = [
        TcbInfo(DIGEST, b"CALIPTRA_2_X_FUSE_OWNER_INFO"),
        TcbInfo(DIGEST, b"CALIPTRA_2_X_FUSE_VENDOR_INFO"),
        TcbInfo(DIGEST, b"CALIPTRA_2_X_FMC_FIRMWARE_INFO", svn=fixed_svn(0)),
    ]
    assert len(content(multi_tcb_info(fmc))) == 302
    assert len(content(tcb_info(TcbInfo(DIGEST, b"CALIPTRA_2_X_RT_FIRMWARE_INFO", fixed_svn(128))))) == 102


@pytest.mark.parametrize(
    ("svn", "fixed", "natural"),
    [(0, "0100", "00"), (1, "0101", "01"), (127, "017f", "7f"), (128, "0180", "0080")],
)
def test_versions_have_a_fixed_and_a_natural_form(svn: int, fixed: str, natural: str) -> None:
    assert fixed_svn(svn).hex() == fixed
    assert natural_svn(svn).hex() == natural
