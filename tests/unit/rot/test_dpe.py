"""DPE: the chain of contexts, the keys that hang on it, the leaf, and every refusal."""

import hmac
import struct

import pytest

from endocarp.crypto import keys
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.crypto.primitives import mldsa_seed, p384_scalar
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, DeviceError, PeerError
from endocarp.rot import dice
from endocarp.rot.dice import Cdi, Validity
from endocarp.rot.dpe import PL0_LIMIT, SUITE_OF, Dpe, Issuer
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.wire import dpe
from endocarp.wire.dpe import DEFAULT_HANDLE, Code, Format, Profile, Status, Support
from endocarp.wire.mailbox import MailboxError
from endocarp.wire.suites import Scheme, Suite

LOCALITY = 1
ROOT_CDI = b"r" * 64
CURRENT, JOURNEY, CONFIGURATION = b"2" * 48, b"3" * 48, b"c" * 48
LABEL = bytes(range(48))
CHAINS = {Suite.P384: b"ecc chain" * 500, Suite.ML_DSA_87: b"mldsa chain" * 500}

KEYS = {suite: keys.generate(suite) for suite in dice.SUITES}
ISSUER = Issuer(
    dice.authority(KEYS.__getitem__, lambda public: dice.name_of(dice.RT_ALIAS, public, CALIPTRA_2_1_2)),
    Validity("20240101000000Z", "20340101000000Z"),
    CHAINS.__getitem__,
)


@pytest.fixture
def tree() -> Dpe:
    return Dpe(
        lambda: Cdi(ROOT_CDI),
        ISSUER,
        locality=LOCALITY,
        current=CURRENT,
        journey=JOURNEY,
        configuration=CONFIGURATION,
    )


def execute(
    tree: Dpe, profile: Profile, request: dpe.Request[dpe.Reply], locality: int = LOCALITY
) -> dpe.Reply:
    command = dpe.encode_command(profile, request)
    return dpe.decode_response(request, tree.execute(profile, locality, command))


def status_of(
    tree: Dpe,
    request: dpe.Request[dpe.Reply],
    profile: Profile = Profile.P384_SHA384,
    locality: int = LOCALITY,
) -> int:
    before = tree.contexts
    with pytest.raises(DeviceError) as refused:
        execute(tree, profile, request, locality)
    assert tree.contexts == before
    return refused.value.number


def certify(profile: Profile, **changes: object) -> dpe.CertifyKeyP384 | dpe.CertifyKeyMldsa87:
    kind = dpe.CertifyKeyP384 if profile is Profile.P384_SHA384 else dpe.CertifyKeyMldsa87
    values = {"context_handle": DEFAULT_HANDLE, "flags": 0, "format": Format.X509, "label": LABEL}
    return kind(**(values | changes))  # type: ignore[arg-type]


def certified(
    tree: Dpe, profile: Profile, **changes: object
) -> dpe.CertifyKeyP384Reply | dpe.CertifyKeyMldsa87Reply:
    request = certify(profile, **changes)
    if isinstance(request, dpe.CertifyKeyP384):
        return execute(tree, profile, request)
    return execute(tree, profile, request)


def test_the_chain_begins_with_the_runtime_and_its_configuration(tree: Dpe) -> None:
    root, configuration = tree.contexts
    assert root.tci_type.to_bytes(4, "little") == b"RTMR"
    assert (root.current, root.cumulative, root.locality) == (CURRENT, JOURNEY, 0xFFFFFFFF)
    assert configuration.tci_type.to_bytes(4, "little") == b"CCIV"
    assert configuration.current == CONFIGURATION
    assert configuration.cumulative == sha384(bytes(48), CONFIGURATION)
    assert configuration.locality == LOCALITY


def test_a_measurement_becomes_the_new_default(tree: Dpe) -> None:
    tree.derive_context(b"m" * 48, 7, svn=3)
    last = tree.contexts[-1]
    assert (last.tci_type, last.current, last.svn) == (7, b"m" * 48, 3)


@pytest.mark.parametrize("name", [b"RTMR", b"CCIV"])
def test_types_of_the_root_of_trust_are_nobody_elses(tree: Dpe, name: bytes) -> None:
    before = tree.contexts
    with pytest.raises(PeerError) as refused:
        tree.derive_context(b"m" * 48, int.from_bytes(name, "little"))
    assert refused.value.number == MailboxError.RUNTIME_STASH_MEASUREMENT_RESERVED_FW_ID
    assert tree.contexts == before


def test_a_locality_has_only_so_many_contexts(tree: Dpe) -> None:
    while len(tree.contexts) < PL0_LIMIT:
        tree.derive_context(b"m" * 48, 7)
    before = tree.contexts
    with pytest.raises(PeerError) as refused:
        tree.derive_context(b"m" * 48, 7)
    assert refused.value.number == MailboxError.RUNTIME_PL0_USED_DPE_CONTEXT_THRESHOLD_REACHED
    assert tree.contexts == before


def derived_key(suite: Suite, measurement_hash: bytes) -> keys.PrivateKey:
    """Derive a leaf key once more, by the words of the specification."""

    def kdf(key: bytes, label: bytes, context: bytes) -> bytes:
        return hmac.digest(key, b"\0\0\0\1" + label + b"\0" + context, "sha384")

    cdi = kdf(ROOT_CDI, b"derive_cdi", sha384(measurement_hash, b"DPE"))
    if suite is Suite.P384:
        return keys.p384_from_scalar(p384_scalar(Secret(kdf(cdi, LABEL, b"ECC"))))
    return keys.mldsa87_from_seed(mldsa_seed(Secret(kdf(cdi, LABEL, b"MLDSA"))))


@pytest.mark.parametrize("profile", Profile)
def test_keys_hang_on_every_measurement_child_first(tree: Dpe, profile: Profile) -> None:
    tree.derive_context(b"m" * 48, 7, svn=3)
    nodes = (
        struct.pack("<I", 7) + sha384(bytes(48), b"m" * 48) + b"m" * 48 + struct.pack("<II", 1, 3),
        b"CCIV" + sha384(bytes(48), CONFIGURATION) + CONFIGURATION + struct.pack("<II", 1, 0),
        b"RTMR" + JOURNEY + CURRENT + struct.pack("<II", 0xFFFFFFFF, 0),
    )
    measured = sha384(b"".join(node + b"\1" for node in nodes))
    reply = certified(tree, profile)
    assert reply.public_key == derived_key(SUITE_OF[profile], measured).public.raw


@pytest.mark.parametrize("profile", Profile)
def test_labels_and_measurements_change_the_key(tree: Dpe, profile: Profile) -> None:
    first = certified(tree, profile).public_key
    assert certified(tree, profile).public_key == first
    other_label = certified(tree, profile, label=b"x" * 48).public_key
    tree.derive_context(b"m" * 48, 7)
    later = certified(tree, profile).public_key
    assert len({first, other_label, later}) == 3


@pytest.mark.parametrize("profile", Profile)
def test_the_leaf_says_what_was_measured(tree: Dpe, profile: Profile) -> None:
    tree.derive_context(b"m" * 48, int.from_bytes(b"EVLT", "little"), svn=200)
    reply = certified(tree, profile)
    leaf = Certificate.parse(reply.cert)
    suite = SUITE_OF[profile]
    assert leaf.signed_by(KEYS[suite].public)
    assert list(leaf.extensions) == [
        "2.23.133.5.4.5", "2.23.133.5.4.4", "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.35",
    ]  # fmt: skip
    info = leaf.extensions["2.23.133.5.4.5"].value
    places = [info.index(tag) for tag in (b"\x89\x04RTMR", b"\x89\x04CCIV", b"\x89\x04EVLT")]
    assert places == sorted(places)
    assert info.index(b"m" * 48) > places[1]
    assert b"\x83\x02\x00\xc8" in info, "the SVN is an INTEGER of the least octets"
    assert b"\x88\x04\xff\xff\xff\xff" in info, "the locality stands as vendor information"
    assert leaf.extensions["2.23.133.5.4.4"].value.endswith(LABEL)
    assert leaf.extensions["2.5.29.19"].value == b"\x30\x00"
    assert leaf.extensions["2.5.29.15"].value == b"\x03\x02\x07\x80"
    assert leaf.authority_key_id == ISSUER.authority.key_ids[suite]
    assert (leaf.not_before, leaf.not_after) == ("20240101000000Z", "20340101000000Z")
    number = sha384(reply.public_key).hex().upper()[:64]
    assert leaf.common_name == "DPE Leaf"
    assert leaf.serial_number == number
    assert leaf.serial == number[:20].encode()


def test_signatures_verify_under_the_certified_keys(tree: Dpe) -> None:
    digest, mu = b"d" * 48, b"u" * 64
    ecc = execute(tree, Profile.P384_SHA384, dpe.SignP384(DEFAULT_HANDLE, LABEL, 0, digest))
    mldsa = execute(tree, Profile.MLDSA87, dpe.SignMldsa87(DEFAULT_HANDLE, LABEL, 0, mu))
    for profile, scheme, signature, data in (
        (Profile.P384_SHA384, Scheme.ECDSA_DIGEST, ecc.signature, digest),
        (Profile.MLDSA87, Scheme.ML_DSA_MU, mldsa.signature, mu),
    ):
        leaf = Certificate.parse(certified(tree, profile).cert)
        assert leaf.public.verify(scheme, signature, data)


@pytest.mark.parametrize("profile", Profile)
def test_the_profile_is_told(tree: Dpe, profile: Profile) -> None:
    reply = execute(tree, profile, dpe.GetProfile())
    assert (reply.major_version, reply.minor_version, reply.max_tci_nodes) == (0, 13, 64)
    assert reply.vendor_id.to_bytes(4, "little") == b"CTRA"
    assert Support(reply.flags) == Support.AUTO_INIT | Support.X509


def test_the_profile_is_told_to_those_who_guess_wrong(tree: Dpe) -> None:
    command = dpe.encode_command(Profile.MLDSA87, dpe.GetProfile())
    octets = tree.execute(Profile.P384_SHA384, LOCALITY, command)
    assert dpe.ResponseHeader.decode(octets[:12]).profile == Profile.P384_SHA384
    dpe.decode_response(dpe.GetProfile, octets)


@pytest.mark.parametrize("size", [1, 97, 2048])
@pytest.mark.parametrize("profile", Profile)
def test_the_chain_is_fetched_in_pieces_of_any_size(tree: Dpe, profile: Profile, size: int) -> None:
    # NCC 97Q: the last piece may be shorter.
    chain = CHAINS[SUITE_OF[profile]]
    offsets = range(max(0, (len(chain) - 1) // size - 2) * size, len(chain), size)
    pieces = [execute(tree, profile, dpe.GetCertificateChain(at, size)).piece for at in offsets]
    assert b"".join(pieces) == chain[offsets[0] :]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (dpe.GetCertificateChain(0, 2049), Status.INVALID_ARGUMENT),
        (dpe.GetCertificateChain(4500, 1), Status.PLATFORM_INVALID_OFFSET),
        (certify(Profile.P384_SHA384, context_handle=b"\1" * 16), Status.INVALID_HANDLE),
        (certify(Profile.P384_SHA384, context_handle=b"\xff" * 16), Status.INVALID_HANDLE),
        (certify(Profile.P384_SHA384, flags=1), Status.INVALID_ARGUMENT),
        (certify(Profile.P384_SHA384, format=Format.CSR), Status.ARGUMENT_NOT_SUPPORTED),
        (certify(Profile.P384_SHA384, format=2), Status.INVALID_ARGUMENT),
        (dpe.SignP384(b"\1" * 16, LABEL, 0, bytes(48)), Status.INVALID_HANDLE),
        (dpe.SignP384(DEFAULT_HANDLE, LABEL, 1, bytes(48)), Status.ARGUMENT_NOT_SUPPORTED),
        (dpe.SignP384(DEFAULT_HANDLE, LABEL, 1 << 31, bytes(48)), Status.ARGUMENT_NOT_SUPPORTED),
    ],
)
def test_a_rule_that_is_broken_is_answered_by_its_status(
    tree: Dpe, request_: dpe.Request[dpe.Reply], status: Status
) -> None:
    assert status_of(tree, request_) == status


def test_a_raw_message_is_not_taken(tree: Dpe) -> None:
    request = dpe.SignMldsa87(DEFAULT_HANDLE, LABEL, 1, bytes(64))
    assert status_of(tree, request, Profile.MLDSA87) == Status.ARGUMENT_NOT_SUPPORTED


@pytest.mark.parametrize("handle", [DEFAULT_HANDLE, b"\1" * 16])
def test_another_locality_learns_nothing_of_handles(tree: Dpe, handle: bytes) -> None:
    # NCC PTP: the same answer for handles that exist and for those that do not.
    request = dpe.SignP384(handle, LABEL, 0, bytes(48))
    assert status_of(tree, request, locality=2) == Status.INVALID_LOCALITY


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (dpe.encode_command(Profile.MLDSA87, certify(Profile.MLDSA87)), Status.INVALID_COMMAND),
        (dpe.CommandHeader(dpe.COMMAND_MAGIC, 8, 4).encode(), Status.INVALID_COMMAND),
        (dpe.CommandHeader(dpe.COMMAND_MAGIC, Code.SIGN, 4).encode() + b"x", Status.INVALID_ARGUMENT),
        (dpe.CommandHeader(dpe.COMMAND_MAGIC, Code.GET_PROFILE, 4).encode() + b"x", Status.INVALID_ARGUMENT),
    ],
)
def test_a_command_that_is_none_is_answered_by_its_status(tree: Dpe, octets: bytes, status: Status) -> None:
    response = tree.execute(Profile.P384_SHA384, LOCALITY, octets)
    assert dpe.ResponseHeader.decode(response).status == status


@pytest.mark.parametrize("octets", [b"", b"\0" * 12])
def test_octets_that_are_no_dpe_command_are_no_response_either(tree: Dpe, octets: bytes) -> None:
    with pytest.raises(DecodeError):
        tree.execute(Profile.P384_SHA384, LOCALITY, octets)
