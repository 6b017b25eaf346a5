"""From a manufactured device and a signed bundle to a server's root of trust in service, in memory, over frames."""

import dataclasses
import hashlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.root_of_trust import (
    FMC,
    IMAGES,
    MODEL,
    NONCE,
    ROM,
    RUNTIME,
    Caller,
    Server,
    ask,
    authorize,
    boot,
    manufacture_server,
)

from endocarp.crypto import keys
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384, shake256
from endocarp.crypto.keys import PublicKey
from endocarp.crypto.secret import Secret
from endocarp.errors import DeviceError
from endocarp.rot import dice, kv
from endocarp.rot.builder import SigningKeys, build_bundle, public_key_hashes
from endocarp.rot.fuses import Device, Fuses
from endocarp.rot.kv import KeyVault
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import idevid_keys
from endocarp.rot.rom import Rom
from endocarp.wire import custody, der, dpe, mailbox
from endocarp.wire.mailbox import (
    PL0_CALLER,
    PL1_CALLER,
    AuthResult,
    ImageSource,
    MailboxError,
    PcrLogId,
    Reply,
    Request,
    decode_pcr_log,
)
from endocarp.wire.manifest import FirmwareId
from endocarp.wire.suites import Scheme, Suite

LABEL = sha384(b"endocarp evidence", NONCE)
SMOKE = Path("../shared/vectors/attestation/caliptra/smoke_testdata")


@pytest.fixture(scope="module")
def server() -> Server:
    return manufacture_server()


def chain(server: Server, suite: Suite) -> list[Certificate]:
    """Fetch the chain through the DPE, in pieces of an odd size, and take it apart; the root comes first."""
    profile = dpe.Profile.P384_SHA384 if suite is Suite.P384 else dpe.Profile.MLDSA87
    octets = b""
    while True:
        piece = server.stranger.dpe(profile, dpe.GetCertificateChain(len(octets), 701)).piece
        octets += piece
        if len(piece) < 701:
            break
    with pytest.raises(DeviceError) as behind:
        server.stranger.dpe(profile, dpe.GetCertificateChain(len(octets), 701))
    assert behind.value.number == dpe.Status.PLATFORM_INVALID_OFFSET
    return [Certificate.parse(server.root[suite]), *split(octets)]


def split(octets: bytes) -> Iterator[Certificate]:
    while octets:
        size = 4 + int.from_bytes(octets[2:4], "big")
        yield Certificate.parse(octets[:size])
        octets = octets[size:]


@pytest.mark.parametrize("suite", dice.SUITES)
def test_every_certificate_is_signed_by_the_one_above_it(server: Server, suite: Suite) -> None:
    certificates = chain(server, suite)
    assert certificates[0].signed_by(certificates[0].public)
    for issuer, subject in itertools.pairwise(certificates):
        assert subject.signed_by(issuer.public)
        assert subject.issuer == issuer.subject
        assert subject.authority_key_id == issuer.key_id
    prefix = "Caliptra 2.1 Ecc384 " if suite is Suite.P384 else "Caliptra 2.1 MlDsa87 "
    assert [certificate.common_name for certificate in certificates] == [
        MODEL,
        *(prefix + title for title in ("IDevID", "LDevID", "FMC Alias", "Rt Alias")),
    ]


def test_openssl_accepts_the_p384_chain_down_to_the_dpe_leaf(server: Server, tmp_path: Path) -> None:
    leaf = server.box.dpe(
        dpe.Profile.P384_SHA384, dpe.CertifyKeyP384(dpe.DEFAULT_HANDLE, 0, dpe.Format.X509, LABEL)
    )
    certificates = [certificate.der for certificate in chain(server, Suite.P384)] + [leaf.cert]
    paths = [tmp_path / f"{number}.pem" for number in range(len(certificates))]
    for path, certificate in zip(paths, certificates, strict=True):
        command = ["openssl", "x509", "-inform", "der", "-out", str(path)]
        subprocess.run(command, input=certificate, check=True)
    between = tmp_path / "between.pem"
    between.write_bytes(b"".join(path.read_bytes() for path in paths[1:-1]))
    # OpenSSL refuses what it calls an unknown critical extension; none of ours is critical but the usual two.
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(paths[0]), "-untrusted", str(between), str(paths[-1])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("request_", "layer", "suite"),
    [
        (mailbox.GetLdevEcc384Cert(), "LDevID", Suite.P384),
        (mailbox.GetLdevMldsa87Cert(), "LDevID", Suite.ML_DSA_87),
        (mailbox.GetFmcAliasEcc384Cert(), "FMC Alias", Suite.P384),
        (mailbox.GetFmcAliasMldsa87Cert(), "FMC Alias", Suite.ML_DSA_87),
        (mailbox.GetRtAliasEcc384Cert(), "Rt Alias", Suite.P384),
        (mailbox.GetRtAliasMldsa87Cert(), "Rt Alias", Suite.ML_DSA_87),
    ],
)
def test_each_certificate_command_answers_its_certificate(
    server: Server, request_: Request[mailbox.DataReply], layer: str, suite: Suite
) -> None:
    certificate = Certificate.parse(server.stranger.execute(request_).data)
    assert certificate.common_name.endswith(layer)
    assert certificate.public.suite is suite


def test_the_idevid_key_and_certificate_belong_together(server: Server) -> None:
    ecc = server.stranger.execute(mailbox.GetIdevEcc384Info())
    mldsa = server.stranger.execute(mailbox.GetIdevMldsa87Info())
    device = server.device
    assert (
        b"\x04" + ecc.idev_pub_x + ecc.idev_pub_y
        == Certificate.parse(device.idevid_ecc_certificate).public.raw
    )
    assert mldsa.idev_pub_key == Certificate.parse(device.idevid_mldsa_certificate).public.raw


def test_the_ecc_quote_is_over_the_pcrs_and_the_nonce(server: Server) -> None:
    quote = server.stranger.execute(mailbox.QuotePcrsEcc384(NONCE))
    fmc = Certificate.parse(server.stranger.execute(mailbox.GetFmcAliasEcc384Cert()).data)
    digest = hashlib.sha512(quote.pcrs + NONCE).digest()[:48]
    assert quote.digest == digest
    assert fmc.public.verify(Scheme.ECDSA_DIGEST, quote.signature_r + quote.signature_s, digest)


def test_the_mldsa_quote_is_over_the_reversed_digest(server: Server) -> None:
    quote = server.stranger.execute(mailbox.QuotePcrsMldsa87(NONCE))
    fmc = Certificate.parse(server.stranger.execute(mailbox.GetFmcAliasMldsa87Cert()).data)
    digest = hashlib.sha512(quote.pcrs + NONCE).digest()
    assert quote.digest == digest
    assert quote.signature[4627:] == b"\0"
    assert fmc.public.verify(Scheme.ML_DSA, quote.signature[:4627], digest[::-1])


def test_the_log_replays_to_the_pcrs_of_the_quote(server: Server) -> None:
    quote = server.stranger.execute(mailbox.QuotePcrsEcc384(NONCE))
    log = decode_pcr_log(server.stranger.execute(mailbox.GetPcrLog()).data)
    assert [entry.id for entry in log] == [
        PcrLogId.DEVICE_STATUS,
        PcrLogId.VENDOR_PUB_KEY_INFO_HASH,
        PcrLogId.OWNER_PUB_KEY_HASH,
        PcrLogId.FMC_TCI,
        PcrLogId.RT_TCI,
    ]
    replayed = {index: bytes(48) for index in range(32)}
    for entry in log:
        data = entry.data[:17] if entry.id is PcrLogId.DEVICE_STATUS else entry.data
        for index in range(32):
            if entry.pcr_mask >> index & 1:
                replayed[index] = hashlib.sha384(replayed[index] + data).digest()
    assert [quote.pcr(index) for index in range(4)] == [replayed[index] for index in range(4)]
    assert log[3].data == sha384(FMC)
    assert log[4].data == sha384(RUNTIME)


def test_firmware_information_names_what_was_booted(server: Server) -> None:
    info = server.stranger.execute(mailbox.FwInfo())
    fuses = server.device.fuses
    assert info.fmc_sha384_digest == sha384(FMC)
    assert info.runtime_sha384_digest == sha384(RUNTIME)
    assert info.rom_sha256_digest == hashlib.sha256(ROM).digest()
    assert (info.vendor_pub_key_hash, info.owner_pub_key_hash) == (fuses.vendor_pk_hash, fuses.owner_pk_hash)
    assert info.authman_sha384_digest == sha384(server.manifest)
    assert (info.fw_svn, info.soc_manifest_current_svn) == (3, 2)
    assert info.pl0_pauser == PL0_CALLER


def test_version_capabilities_and_self_test_answer(server: Server) -> None:
    version = server.stranger.execute(mailbox.Version())
    assert version.mode.to_bytes(4, "big") == b"FIPS"
    assert version.name == b"Caliptra RTM"
    capabilities = server.stranger.execute(mailbox.Capabilities())
    assert int.from_bytes(capabilities.capabilities, "big") == 1 | 1 << 64
    server.stranger.execute(mailbox.SelfTestStart())
    server.stranger.execute(mailbox.SelfTestGetResults())


@pytest.mark.parametrize("suite", dice.SUITES)
def test_what_the_dpe_signs_verifies_under_the_key_it_certified(server: Server, suite: Suite) -> None:
    message = b"evidence"
    handle = dpe.DEFAULT_HANDLE
    if suite is Suite.P384:
        profile = dpe.Profile.P384_SHA384
        ecc = server.box.dpe(profile, dpe.CertifyKeyP384(handle, 0, dpe.Format.X509, LABEL))
        signature = server.box.dpe(profile, dpe.SignP384(handle, LABEL, 0, sha384(message))).signature
        public, certificate, scheme = ecc.public_key, ecc.cert, Scheme.ECDSA_SHA384
    else:
        profile = dpe.Profile.MLDSA87
        mldsa = server.box.dpe(profile, dpe.CertifyKeyMldsa87(handle, 0, dpe.Format.X509, LABEL))
        mu = shake256(shake256(mldsa.public_key, size=64), b"\0\0", message, size=64)
        signature = server.box.dpe(profile, dpe.SignMldsa87(handle, LABEL, 0, mu)).signature
        public, certificate, scheme = mldsa.public_key, mldsa.cert, Scheme.ML_DSA
    leaf = Certificate.parse(certificate)
    assert leaf.public.raw == public
    assert leaf.signed_by(server.runtime.rt_alias.key(suite).public)
    assert leaf.public.verify(scheme, signature, message)


def test_an_image_is_authorized_by_the_memory_that_came_with_the_frame(server: Server) -> None:
    image = IMAGES[FirmwareId.VAULT]
    before = len(server.runtime.dpe.contexts)
    pcr31 = server.runtime.bank[31]
    asked = mailbox.AuthorizeAndStash(
        FirmwareId.VAULT, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, len(image)
    )
    assert server.box.execute(asked, image).auth_req_result == AuthResult.AUTHORIZED
    assert server.runtime.bank[31] == hashlib.sha384(pcr31 + sha384(image)).digest()
    assert len(server.runtime.dpe.contexts) == before + 1
    changed = bytes([image[0] ^ 1]) + image[1:]
    assert server.box.execute(asked, changed).auth_req_result == AuthResult.DIGEST_MISMATCH
    assert len(server.runtime.dpe.contexts) == before + 1


def test_a_vault_gets_its_seal_key_and_its_identity_certified(server: Server) -> None:
    image = IMAGES[FirmwareId.VAULT]
    authorize(server, FirmwareId.VAULT)
    server.box.execute(mailbox.AttachCustody(7, FirmwareId.VAULT))
    channel = server.runtime.custody(server.box.attached.pop())
    key = ask(channel, custody.SealKey()).key
    own = {suite: keys.generate(suite) for suite in dice.SUITES}
    public = {suite: own[suite].public for suite in dice.SUITES}
    identity = ask(channel, custody.CertifyIdentity(public[Suite.P384].raw, public[Suite.ML_DSA_87].raw))
    assert identity.image_digest == sha384(image)
    for suite, octets in (
        (Suite.P384, identity.ecc_certificate),
        (Suite.ML_DSA_87, identity.mldsa_certificate),
    ):
        certificate = Certificate.parse(octets)
        assert certificate.signed_by(server.runtime.rt_alias.key(suite).public)
        assert certificate.public == public[suite]
        assert certificate.common_name == "Endocarp Partition 7"
        assert sha384(image) in certificate.extensions["2.23.133.5.4.1"].value
    # The same device gives the same key to the same partition at every boot, whatever firmware it runs.
    signing = SigningKeys.generate()
    vendor, owner = public_key_hashes(signing)
    fuses = Fuses(**{**vars(server.device.fuses), "vendor_pk_hash": vendor, "owner_pk_hash": owner})
    device = Device(MODEL, fuses, server.device.obfuscation_key, server.device.doe_iv)
    _, other = boot(device, build_bundle(FMC, RUNTIME, signing, svn=4))
    other.authorized = {FirmwareId.VAULT: sha384(image)}
    for partition, same in ((7, True), (8, False)):
        message = mailbox.AttachCustody(partition, FirmwareId.VAULT).encode()
        assert (ask(other.custody(message), custody.SealKey()).key == key) is same


def test_the_image_of_box_is_the_first_that_stands_in_the_leaf(server: Server) -> None:
    names = [context.tci_type.to_bytes(4, "little") for context in server.runtime.dpe.contexts[:3]]
    assert names == [b"RTMR", b"CCIV", b"EBOX"]


@pytest.mark.parametrize(
    "request_",
    [
        mailbox.StashMeasurement(1, bytes(48), bytes(48), 0),
        mailbox.SetAuthManifest(b""),
        mailbox.PopulateIdevEcc384Cert(b""),
        mailbox.PopulateIdevMldsa87Cert(b""),
        mailbox.AttachCustody(0, FirmwareId.VAULT),
        mailbox.Shutdown(),
        mailbox.AuthorizeAndStash(FirmwareId.VAULT, bytes(48), bytes(48), 0, 0, 1, 0),
        mailbox.InvokeDpeEcc384(
            dpe.encode_command(
                dpe.Profile.P384_SHA384,
                dpe.CertifyKeyP384(dpe.DEFAULT_HANDLE, 0, dpe.Format.X509, bytes(48)),
            )
        ),
    ],
)
def test_a_stranger_may_not_have_what_belongs_to_pl0(server: Server, request_: Request[Reply]) -> None:
    with pytest.raises(DeviceError) as refused:
        Caller(server.runtime, PL1_CALLER).call(request_)
    assert refused.value.number == MailboxError.RUNTIME_INCORRECT_PAUSER_PRIVILEGE_LEVEL


def test_two_boots_of_one_device_give_the_same_p384_chain(server: Server) -> None:
    _, again = boot(server.device, server.bundle)
    assert again.handoff.rt_alias.ecc == server.runtime.handoff.rt_alias.ecc


def test_other_firmware_gives_another_identity(server: Server) -> None:
    signing = SigningKeys.generate()
    vendor, owner = public_key_hashes(signing)
    fuses = Fuses(**{**vars(server.device.fuses), "vendor_pk_hash": vendor, "owner_pk_hash": owner})
    device = Device(MODEL, fuses, server.device.obfuscation_key, server.device.doe_iv)
    _, other = boot(device, build_bundle(FMC, RUNTIME, signing))
    ours, theirs = server.runtime.handoff, other.handoff
    assert ours.idev_keys == theirs.idev_keys
    assert ours.ldevid.ecc == theirs.ldevid.ecc
    assert ours.fmc_alias.ecc != theirs.fmc_alias.ecc
    assert ours.rt_alias.ecc != theirs.rt_alias.ecc


# --- golden octets of the real ROM -----------------------------------------------------------------------------

DEFAULT_OBFUSCATION_KEY = bytes.fromhex("a0a1a2a3b0b1b2b3c0c1c2c3d0d1d2d3e0e1e2e3f0f1f2f3a4a5a6a7b4b5b6b7")
DEFAULT_DOE_IV = bytes.fromhex("fb10365ba1179741fba193a10f406d7e")
PINS = {
    "idevid_csr_ecc": "3b8e101b6d3c3a45eb06ba7370d8dfa32919c9afc81647c054a8bb99b9fcf87f",
    "ldevid_cert_ecc": "3e123d61da5be740183f61e6e33124e5e8030e42f3bf7b2261544a9f38d221b4",
}


@pytest.fixture(scope="module")
def default_device() -> Device:
    """The device that Caliptra's own tests run on."""
    fuses = Fuses(
        uds_seed=bytes(range(0x40)),
        field_entropy=bytes(range(0x80, 0xA0)),
        vendor_pk_hash=bytes(48),
    )
    return Device(MODEL, fuses, Secret(DEFAULT_OBFUSCATION_KEY), DEFAULT_DOE_IV)


def test_the_idevid_requests_are_those_of_the_real_rom(default_device: Device) -> None:
    requests = dice.request_idevid(idevid_keys(default_device), default_device.fuses, CALIPTRA_2_1_2)
    assert hashlib.sha256(requests.ecc).hexdigest() == PINS["idevid_csr_ecc"]
    golden = golden_file("idevid_csr_mldsa.der")
    # The signature is hedged here and deterministic there; everything that is signed must be the same.
    assert requests.mldsa[:-4627] == golden[:-4627]


def test_the_ldevid_certificates_are_those_of_the_real_rom(default_device: Device) -> None:
    rom = Rom(default_device, KeyVault(memoryview(bytearray(kv.SIZE))), ROM)
    assert hashlib.sha256(rom.ldevid.ecc).hexdigest() == PINS["ldevid_cert_ecc"]
    golden = golden_file("ldevid_cert_mldsa.der")
    assert rom.ldevid.mldsa[:-4627] == golden[:-4627]
    idevid = dice.public_keys(idevid_keys(default_device))
    issuer = PublicKey.from_raw(Suite.ML_DSA_87, idevid.mldsa)
    assert Certificate.parse(golden).signed_by(issuer)
    assert Certificate.parse(rom.ldevid.mldsa).signed_by(issuer)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("rom-latest/fmc_alias_cert_redacted.der", dice.FMC_ALIAS),
        ("rt_alias_cert_redacted.der", dice.RT_ALIAS),
    ],
)
def test_alias_certificates_are_laid_out_as_those_of_the_real_firmware(
    default_device: Device, name: str, layer: dice.Layer
) -> None:
    signing = SigningKeys.generate()
    vendor, _ = public_key_hashes(signing)
    fuses = dataclasses.replace(default_device.fuses, vendor_pk_hash=vendor)
    device = dataclasses.replace(default_device, fuses=fuses)
    _, runtime = boot(device, build_bundle(FMC, RUNTIME, signing))
    ours = Certificate.parse(runtime.certificates()[layer].ecc)
    golden, key = tbs_and_key(golden_file(name))
    found = ours.tbs.replace(ours.public.raw, key)
    assert len(found) == len(golden)
    # Caliptra, test/src/redact.rs: digests, serial numbers and key ids are overwritten by the octet 0x44.
    assert [at for at, octet in enumerate(golden) if octet not in (0x44, found[at])] == []


def tbs_and_key(octets: bytes) -> tuple[bytes, bytes]:
    """Return what is signed in a certificate, and its P-384 point, which may be a made-up one."""
    tbs = der.Reader(octets, "golden").sequence().element(der.SEQUENCE)
    at = tbs.index(bytes.fromhex("03620004")) + 3
    return tbs, tbs[at : at + 97]


def golden_file(name: str) -> bytes:
    path = Path(__file__).parents[2] / SMOKE / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path.read_bytes()
