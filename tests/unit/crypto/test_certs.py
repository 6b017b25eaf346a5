"""Certificates and requests: Caliptra's octets exactly, read strictly."""

import dataclasses
import random
from collections.abc import Callable, Mapping

import pytest
from cryptography import x509

from endocarp.crypto import certs
from endocarp.crypto.certs import (
    Certificate,
    Extension,
    KeyUsage,
    Name,
    authority_key_id,
    basic_constraints,
    certificate,
    extended_key_usage,
    extension,
    key_id,
    key_usage,
    request,
    self_signed_ca,
    serial_of,
    subject_key_id,
    tbs_certificate,
    tbs_request,
    ueid,
)
from endocarp.crypto.digest import sha1, sha256
from endocarp.crypto.keys import PrivateKey, PublicKey, generate, mldsa87_from_seed, p384_from_scalar
from endocarp.crypto.primitives import doe_decrypt, hmac_sha512, kdf_sha512, mldsa_seed, p384_scalar
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, UsageError
from endocarp.wire import der
from endocarp.wire.suites import Suite

SIGNING = [Suite.P256, Suite.P384, Suite.ML_DSA_65, Suite.ML_DSA_87]
KEYS = {suite: generate(suite) for suite in SIGNING}
KEY = KEYS[Suite.P384]
NAME = Name("Root")
SOME = [ueid(bytes(17))]


# --- the real ROM's certificates ------------------------------------------------------------------------------

# Caliptra hw-model, default test inputs: every word big-endian.
OBFUSCATION_KEY = bytes.fromhex("a0a1a2a3b0b1b2b3c0c1c2c3d0d1d2d3e0e1e2e3f0f1f2f3a4a5a6a7b4b5b6b7")
OBFUSCATION_IV = bytes.fromhex("fb10365ba1179741fba193a10f406d7e")
UDS_SEED, FIELD_ENTROPY = bytes(range(0x40)), bytes(range(0x80, 0xA0))


def identity_cdis() -> tuple[Secret, Secret]:
    with Secret(OBFUSCATION_KEY) as key:
        uds = doe_decrypt(key, OBFUSCATION_IV, UDS_SEED)
        entropy = doe_decrypt(key, OBFUSCATION_IV, FIELD_ENTROPY)
    idevid = kdf_sha512(uds, b"idevid_cdi")
    return idevid, hmac_sha512(hmac_sha512(idevid, b"ldevid_cdi"), entropy)


def ecc_key(cdi: Secret, label: bytes) -> PrivateKey:
    with kdf_sha512(cdi, label + b"_ecc_key") as output:
        return p384_from_scalar(p384_scalar(Secret(output.view[:48])))


def mldsa_key(cdi: Secret, label: bytes) -> PrivateKey:
    return mldsa87_from_seed(mldsa_seed(kdf_sha512(cdi, label + b"_mldsa_key")))


def caliptra_name(suite: str, layer: str, public: PublicKey) -> Name:
    return Name(f"Caliptra 2.1 {suite} {layer}", sha256(public.raw).hex().upper())


def caliptra_extensions(path_length: int, *purposes: int) -> list[bytes]:
    return [
        basic_constraints(path_length),
        key_usage([KeyUsage.KEY_CERT_SIGN]),
        ueid(bytes(17)),
        extended_key_usage([f"2.23.133.5.4.100.{purpose}" for purpose in purposes]),
    ]


def idevid_request(suite: str, idevid: PrivateKey) -> bytes:
    return tbs_request(
        subject=caliptra_name(suite, "IDevID", idevid.public),
        public=idevid.public,
        extensions=caliptra_extensions(7, 6, 12),
    )


def ldevid_tbs(suite: str, idevid: PrivateKey, ldevid: PrivateKey) -> bytes:
    return tbs_certificate(
        issuer=caliptra_name(suite, "IDevID", idevid.public),
        subject=caliptra_name(suite, "LDevID", ldevid.public),
        serial=serial_of(ldevid.public),
        public=ldevid.public,
        signer=idevid.suite,
        extensions=[
            *caliptra_extensions(6, 7, 12),
            subject_key_id(key_id(ldevid.public)),
            authority_key_id(sha1(idevid.public.raw)),
        ],
    )


def test_the_idevid_request_is_the_one_that_the_rom_makes() -> None:
    key = ecc_key(identity_cdis()[0], b"idevid")
    made = request(idevid_request("Ecc384", key), key)
    assert sha256(made).hex() == "3b8e101b6d3c3a45eb06ba7370d8dfa32919c9afc81647c054a8bb99b9fcf87f"


def test_the_ldevid_certificate_is_the_one_that_the_rom_makes() -> None:
    idevid_cdi, ldevid_cdi = identity_cdis()
    idevid, ldevid = ecc_key(idevid_cdi, b"idevid"), ecc_key(ldevid_cdi, b"ldevid")
    made = certificate(ldevid_tbs("Ecc384", idevid, ldevid), idevid)
    assert sha256(made).hex() == "3e123d61da5be740183f61e6e33124e5e8030e42f3bf7b2261544a9f38d221b4"


def test_the_ml_dsa_templates_are_those_of_the_rom_but_for_the_signature() -> None:
    # The signatures are hedged here and deterministic there: the pins are of the golden files up to where the
    # signature begins (tests/conformance holds them against the files themselves).
    idevid_cdi, ldevid_cdi = identity_cdis()
    idevid, ldevid = mldsa_key(idevid_cdi, b"idevid"), mldsa_key(ldevid_cdi, b"ldevid")
    asked = idevid_request("MlDsa87", idevid)
    issued = ldevid_tbs("MlDsa87", idevid, ldevid)
    assert sha256(asked).hex() == "30a79b97d3eb443ba26dbdd2c48ed82a387a8b19f8e7d9f617d26fe58d8186d3"
    assert sha256(issued).hex() == "b003dda60a95f21aaf3aa00379be0c6d3782b3fdec8893488c645c0bd6f402d9"
    assert Certificate.parse(certificate(issued, idevid)).signed_by(idevid.public)


# --- names, numbers, extensions -------------------------------------------------------------------------------


def test_a_name_is_utf8_or_printable_and_its_serial_number_printable() -> None:
    assert Name("é").der().hex() == "300d310b300906035504030c02c3a9"
    assert Name("A", printable=True).der().hex() == "300c310a30080603550403130141"
    assert Name("A", "1F").der().hex() == "3019310a300806035504030c0141310b3009060355040513023146"


def test_serial_numbers_follow_caliptras_rule() -> None:
    for key in KEYS.values():
        digest, serial = sha256(key.public.raw), serial_of(key.public)
        assert len(serial) == 20
        assert serial[1:] == digest[1:20]
        assert serial[0] == digest[0] & 0x7F | 0x04
        assert key_id(key.public) == digest[:20]


def test_basic_constraints_tell_authorities_from_others() -> None:
    assert basic_constraints(6).hex() == "30120603551d130101ff040830060101ff020106"
    assert basic_constraints(None).hex() == "300c0603551d130101ff04023000"


@pytest.mark.parametrize(
    ("usages", "value"),
    [
        ([KeyUsage.KEY_CERT_SIGN], "03020204"),
        ([KeyUsage.DIGITAL_SIGNATURE], "03020780"),
        ([KeyUsage.KEY_CERT_SIGN, KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_CERT_SIGN], "03020284"),
        ([KeyUsage.KEY_ENCIPHERMENT], "03020520"),
        ([KeyUsage.DECIPHER_ONLY], "0303070080"),
        ([KeyUsage.ENCIPHER_ONLY], "03020001"),
    ],
)
def test_key_usage_is_a_list_of_named_bits(usages: list[KeyUsage], value: str) -> None:
    assert key_usage(usages) == extension("2.5.29.15", bytes.fromhex(value), critical=True)


def test_the_ueid_is_caliptras_example() -> None:
    octets = bytes(range(1, 17))
    expected = bytes.fromhex("301f060667810505040404153013041101") + octets
    assert ueid(b"\x01" + octets) == expected


def test_a_critical_extension_says_so_and_others_say_nothing() -> None:
    assert extension("2.5.29.99", b"\x05\x00", critical=True).hex() == "300c0603551d630101ff04020500"
    assert extension("2.5.29.99", b"\x05\x00").hex() == "30090603551d6304020500"
    assert (
        extended_key_usage(["2.5.29.37.0"], critical=True).hex() == "30120603551d250101ff040830060604551d2500"
    )


# --- there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SIGNING)
def test_a_root_signs_itself(suite: Suite) -> None:
    key = KEYS[suite]
    octets = self_signed_ca(NAME, key)
    root = Certificate.parse(octets)
    assert root.der == octets
    assert root.signed_by(key.public)
    assert root.public == key.public
    assert root.suite is suite
    assert (root.common_name, root.serial_number) == ("Root", "")
    assert root.issuer == root.subject == NAME.der()
    assert root.serial == serial_of(key.public)
    assert (root.not_before, root.not_after) == ("20230101000000Z", "99991231235959Z")
    assert (root.key_id, root.authority_key_id) == (key_id(key.public), None)
    assert (root.is_authority, root.path_length) == (True, 8)
    assert root.key_usage == {KeyUsage.KEY_CERT_SIGN}
    assert root.extensions["2.5.29.14"] == Extension(
        critical=False, value=der.octet_string(key_id(key.public))
    )


@pytest.mark.parametrize("signer", SIGNING)
def test_the_library_reads_and_verifies_what_we_write(signer: Suite) -> None:
    octets = self_signed_ca(Name("Root", "00FF", printable=True), KEYS[signer])
    read = x509.load_der_x509_certificate(octets)
    read.verify_directly_issued_by(read)
    assert read.subject.rfc4514_string() == "2.5.4.5=00FF,CN=Root"
    asked = request(
        tbs_request(subject=NAME, public=KEYS[signer].public, extensions=[basic_constraints(7)]), KEYS[signer]
    )
    assert x509.load_der_x509_csr(asked).is_signature_valid


def leaf(
    *, extensions: list[bytes], issuer: Name | bytes = NAME, key: PrivateKey = KEY, serial: bytes = b"\x01"
) -> bytes:
    return tbs_certificate(
        issuer=issuer,
        subject=Name("Leaf"),
        serial=serial,
        public=KEYS[Suite.P256].public,
        signer=key.suite,
        extensions=extensions,
        not_before="20240101000000Z",
        not_after="20250101000000Z",
    )


def test_a_leaf_is_read_as_it_was_written() -> None:
    root = Certificate.parse(self_signed_ca(NAME, KEY))
    tbs = leaf(
        issuer=root.subject,
        extensions=[
            basic_constraints(None),
            key_usage([KeyUsage.DIGITAL_SIGNATURE, KeyUsage.DECIPHER_ONLY]),
            authority_key_id(key_id(KEY.public)),
        ],
    )
    read = Certificate.parse(certificate(tbs, KEY))
    assert read.tbs == tbs
    assert read.issuer == root.subject
    assert (read.serial, read.common_name) == (b"\x01", "Leaf")
    assert (read.not_before, read.not_after) == ("20240101000000Z", "20250101000000Z")
    assert (read.is_authority, read.path_length) == (False, None)
    assert read.key_usage == {KeyUsage.DIGITAL_SIGNATURE, KeyUsage.DECIPHER_ONLY}
    assert (read.key_id, read.authority_key_id) == (None, key_id(KEY.public))
    assert read.signed_by(root.public)
    assert list(read.extensions) == ["2.5.29.19", "2.5.29.15", "2.5.29.35"]


def test_a_certificate_whose_extensions_allow_nothing_allows_nothing() -> None:
    read = Certificate.parse(certificate(leaf(extensions=SOME), KEY))
    assert (read.is_authority, read.path_length, read.key_usage) == (False, None, frozenset())
    assert read.key_id is None
    assert read.authority_key_id is None


def test_an_authority_may_have_no_limit() -> None:
    unlimited = extension("2.5.29.19", der.sequence(der.boolean(value=True)), critical=True)
    read = Certificate.parse(certificate(leaf(extensions=[unlimited]), KEY))
    assert (read.is_authority, read.path_length) == (True, None)


@pytest.mark.parametrize("suite", SIGNING)
def test_a_certificate_is_signed_by_one_key_alone(suite: Suite) -> None:
    read = Certificate.parse(certificate(leaf(extensions=SOME, key=KEYS[suite]), KEYS[suite]))
    assert read.signed_by(KEYS[suite].public)
    assert not any(read.signed_by(KEYS[other].public) for other in SIGNING if other is not suite)
    assert not read.signed_by(generate(suite).public)
    changed = dataclasses.replace(read, tbs=read.tbs[:-1] + b"\x01")
    assert not changed.signed_by(KEYS[suite].public)


def test_certificates_of_p384_are_the_same_each_time() -> None:
    assert certificate(leaf(extensions=SOME), KEY) == certificate(leaf(extensions=SOME), KEY)


def test_rsa_signs_no_certificates() -> None:
    with pytest.raises(UsageError, match="RSA2048 signs no certificates"):
        self_signed_ca(NAME, generate(Suite.RSA2048))


def test_an_rsa_key_may_be_certified() -> None:
    public = generate(Suite.RSA2048).public
    tbs = tbs_certificate(
        issuer=NAME, subject=NAME, serial=b"\x01", public=public, signer=KEY.suite, extensions=SOME
    )
    assert Certificate.parse(certificate(tbs, KEY)).public == public


# --- what is refused ------------------------------------------------------------------------------------------


def rebuilt(change: Mapping[int, bytes]) -> bytes:
    """Return a signed certificate in whose body the elements with these numbers were exchanged."""
    body = der.Reader.of_sequence(leaf(extensions=SOME), "Test")
    elements = []
    while body:
        elements.append(body.element())
    for index, octets in change.items():
        elements[index] = octets
    return certificate(der.sequence(*elements), KEY)


VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, SPKI, EXTENSIONS = range(8)
WRAPPED = der.context(3, der.sequence(*SOME), constructed=True)


def with_default(oid: str) -> bytes:
    """Return extensions of which one says that it is not critical, which DER leaves out."""
    one = der.sequence(der.oid(oid), der.boolean(value=False), der.octet_string(b""))
    return der.context(3, der.sequence(one), constructed=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({VERSION: der.context(0, der.integer(0), constructed=True)}, "not of version 3"),
        ({VERSION: der.context(0, der.integer(2) * 2, constructed=True)}, "left over"),
        ({VERSION: b""}, "tag 0x02 where 0xa0 is expected"),
        ({SERIAL: der.integer(0)}, "a serial number out of range"),
        ({SERIAL: der.integer(-1)}, "a serial number out of range"),
        ({SERIAL: der.integer(1 << 160)}, "a serial number out of range"),
        ({ALGORITHM: der.sequence(der.oid("1.2.840.10045.4.3.2"))}, "two signature algorithms"),
        ({ALGORITHM: der.sequence(der.oid("1.2.840.113549.1.1.11"), der.null())}, "not known here"),
        ({ISSUER: der.set_()}, "tag 0x31"),
        ({VALIDITY: der.sequence(der.generalized_time("20240101000000Z") * 3)}, "left over"),
        ({VALIDITY: der.sequence(der.generalized_time("20240101000000Z"))}, "where a time is expected"),
        ({SPKI: der.sequence()}, "cut short"),
        ({EXTENSIONS: der.context(1, b"\x00", constructed=False) + WRAPPED}, "tag 0x81"),
        ({EXTENSIONS: WRAPPED * 2}, "left over"),
        ({EXTENSIONS: der.context(3, der.sequence(), constructed=True)}, "extensions without one"),
        ({EXTENSIONS: with_default("2.5.29.14")}, "a default that is written down"),
        (
            {EXTENSIONS: der.context(3, der.sequence(ueid(b"a"), ueid(b"b")), constructed=True)},
            "extension 2.23.133.5.4.4 twice",
        ),
    ],
)
def test_a_body_is_as_rfc_5280_says(change: Mapping[int, bytes], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        Certificate.parse(rebuilt(change))


def test_utc_times_are_read() -> None:
    times = der.tlv(der.UTC_TIME, b"240101000000Z") + der.tlv(der.UTC_TIME, b"500101000000Z")
    read = Certificate.parse(rebuilt({VALIDITY: der.sequence(times)}))
    assert (read.not_before, read.not_after) == ("20240101000000Z", "19500101000000Z")


P384_ALGORITHM = der.sequence(der.oid("1.2.840.10045.4.3.3"))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        der.sequence(der.integer(1)),
        der.sequence(der.integer(1) * 3),
        der.sequence(der.integer(1) * 2) + b"\x00",
        der.sequence(der.integer(0), der.integer(1)),
        der.sequence(der.integer(1), der.integer(-1)),
        der.sequence(der.integer(1 << 384), der.integer(1)),
    ],
)
def test_an_ecdsa_signature_is_two_numbers_in_range(signature: bytes) -> None:
    octets = der.sequence(leaf(extensions=SOME), P384_ALGORITHM, der.bit_string(signature))
    with pytest.raises(DecodeError):
        Certificate.parse(octets)


def test_an_ml_dsa_signature_has_its_size() -> None:
    key = KEYS[Suite.ML_DSA_65]
    algorithm = der.sequence(der.oid("2.16.840.1.101.3.4.3.18"))
    octets = der.sequence(leaf(extensions=SOME, key=key), algorithm, der.bit_string(bytes(3308)))
    with pytest.raises(DecodeError, match="a signature of 3308 octets, ML_DSA_65 has 3309"):
        Certificate.parse(octets)


def test_nothing_follows_a_certificate() -> None:
    octets = certificate(leaf(extensions=SOME), KEY)
    with pytest.raises(DecodeError, match="1 octets left over"):
        Certificate.parse(octets + b"\x00")
    whole = der.Reader.of_sequence(octets, "Test")
    parts = [whole.element() for _ in range(3)]
    with pytest.raises(DecodeError, match="left over"):
        Certificate.parse(der.sequence(*parts, der.null()))


Property = Callable[[Certificate], object]


@pytest.mark.parametrize(
    ("oid", "value", "read", "reason"),
    [
        ("2.5.29.14", der.octet_string(b"a") * 2, lambda c: c.key_id, "left over"),
        ("2.5.29.35", der.sequence() * 2, lambda c: c.authority_key_id, "left over"),
        ("2.5.29.35", der.sequence(der.tlv(0x81)), lambda c: c.authority_key_id, "tag 0x81"),
        ("2.5.29.35", der.sequence(der.tlv(0x80) * 2), lambda c: c.authority_key_id, "left over"),
        ("2.5.29.15", der.bit_string(b"\x80", 7) * 2, lambda c: c.key_usage, "left over"),
        ("2.5.29.15", der.bit_string(b"\x00\x40", 6), lambda c: c.key_usage, "without a name"),
        ("2.5.29.19", der.sequence() * 2, lambda c: c.is_authority, "left over"),
        ("2.5.29.19", der.sequence(der.integer(1)), lambda c: c.is_authority, "left over"),
        ("2.5.29.19", der.sequence(der.boolean(value=False)), lambda c: c.is_authority, "a default that is"),
        (
            "2.5.29.19",
            der.sequence(der.boolean(value=True), der.integer(-1)),
            lambda c: c.path_length,
            "negative",
        ),
    ],
)
def test_an_extension_is_read_strictly(oid: str, value: bytes, read: Property, reason: str) -> None:
    parsed = Certificate.parse(certificate(leaf(extensions=[extension(oid, value)]), KEY))
    with pytest.raises(DecodeError, match=reason):
        read(parsed)


def test_a_name_is_read_strictly_where_it_is_used() -> None:
    def attribute(oid: str, *values: bytes) -> bytes:
        return der.set_(der.sequence(der.oid(oid), *values))

    country, text = attribute("2.5.4.6", der.printable("SE")), der.utf8("Leaf")
    odd = der.sequence(country, attribute("2.5.4.3", text), attribute("2.5.4.5", der.printable("1F")))
    read = Certificate.parse(rebuilt({SUBJECT: odd}))
    assert (read.common_name, read.serial_number) == ("Leaf", "1F")
    for subject, reason in (
        (der.sequence(attribute("2.5.4.3", text), attribute("2.5.4.3", text)), r"attribute 2\.5\.4\.3 twice"),
        (der.sequence(attribute("2.5.4.3", text, text)), "left over"),
        (der.sequence(attribute("2.5.4.6", text, text)), "left over"),
        (der.sequence(attribute("2.5.4.3", der.integer(1))), "where text is expected"),
    ):
        read = Certificate.parse(rebuilt({SUBJECT: subject}))
        with pytest.raises(DecodeError, match=reason):
            _ = read.common_name


def test_a_name_without_a_common_name_has_an_empty_one() -> None:
    assert Certificate.parse(rebuilt({SUBJECT: der.sequence()})).common_name == ""


def test_changed_octets_raise_nothing_but_decode_errors() -> None:
    chance = random.Random(5)
    octets = self_signed_ca(Name("Root", "1F"), KEY)
    accepted = 0
    for _ in range(4000):
        changed = bytearray(octets)
        for _ in range(chance.randrange(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            read = Certificate.parse(bytes(changed[: chance.choice((len(changed), len(changed) - 1))]))
            _ = (read.key_id, read.key_usage, read.path_length, read.common_name, read.authority_key_id)
        except DecodeError:
            continue
        accepted += 1
        assert bytes(changed) == octets or not read.signed_by(KEY.public)
    assert accepted


def test_the_constants_are_what_the_field_calls_them() -> None:
    assert (certs.NOT_BEFORE, certs.NOT_AFTER) == ("20230101000000Z", "99991231235959Z")
