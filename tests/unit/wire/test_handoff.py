"""The hand-off table on the wire."""

from typing import Any

import pytest

from endocarp.errors import DecodeError
from endocarp.wire.handoff import (
    MARKER,
    VERSION,
    CertificatePair,
    Handoff,
    Measurement,
    PublicKeyPair,
    Writer,
)
from endocarp.wire.suites import Suite

KEYS = PublicKeyPair(ecc=b"\4" * 97, mldsa=b"m" * 2592)
PAIR = CertificatePair(ecc=b"ecc", mldsa=b"mldsa")


def table(**changes: object) -> Handoff:
    values: dict[str, Any] = dict.fromkeys(Handoff.__annotations__, 0)
    values |= {name: b"d" * 48 for name in values if name.endswith(("digest", "hash"))}
    values |= {name: b"r" * 20 for name in values if name.endswith("revision")}
    values |= {name: KEYS for name in values if name.endswith("keys")}
    values |= dict.fromkeys(("ldevid", "fmc_alias", "rt_alias"), PAIR)
    values |= {"marker": MARKER, "version": VERSION, "writer": Writer.ROM, "ueid": b"u" * 17}
    values |= {"rom_digest": b"d" * 32, "not_before": b"n" * 15, "not_after": b"n" * 15}
    values |= {"pcrs": b"p" * 1536, "pcr_log": b"log"}
    values |= {"measurements": (Measurement(1, b"m" * 48, b"c" * 48, 2),)}
    return Handoff(**(values | changes))


def test_a_table_survives_the_way() -> None:
    octets = table().encode()
    assert octets.startswith(b"CFHT")
    assert Handoff.decode(octets) == table()


def test_pairs_are_asked_by_suite() -> None:
    assert (PAIR[Suite.P384], PAIR[Suite.ML_DSA_87]) == (b"ecc", b"mldsa")
    assert (KEYS[Suite.P384], KEYS[Suite.ML_DSA_87]) == (KEYS.ecc, KEYS.mldsa)
    assert CertificatePair() == CertificatePair(b"", b"")


@pytest.mark.parametrize(
    ("at", "field"), [(0, "Handoff.marker"), (4, "Handoff.version"), (6, "Handoff.writer")]
)
def test_a_table_of_another_kind_is_refused(at: int, field: str) -> None:
    octets = bytearray(table().encode())
    octets[at] ^= 0x40
    with pytest.raises(DecodeError, match=field):
        Handoff.decode(bytes(octets))


def test_a_table_that_is_cut_short_is_refused() -> None:
    octets = table().encode()
    for size in (0, 100, len(octets) - 1):
        with pytest.raises(DecodeError):
            Handoff.decode(octets[:size])
