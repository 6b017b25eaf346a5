"""DICE Protection Environment: a tree of measured contexts, and the keys that are bound to all of them.

Part of TCG's DPE: the tree grows by measurements that are stashed, each a child of the default context of the PL0
locality and its new default; CertifyKey and Sign work for that context. So the tree is a chain

    RTMR (what FMC measured) -> CCIV (configuration) -> one context a stashed measurement

whose last member holds the default handle. What fails leaves the chain as it was.

Source: TCG DPE for iRoT, with Caliptra's extensions; caliptra-dpe, dpe/src; caliptra-sw, runtime/src/drivers.rs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from endocarp.crypto import certs
from endocarp.crypto.certs import KeyUsage, Name
from endocarp.crypto.digest import equal, sha384
from endocarp.crypto.keys import PrivateKey, mldsa87_from_seed, p384_from_scalar
from endocarp.crypto.primitives import kdf_sha384, mldsa_seed, p384_scalar
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, PeerError
from endocarp.rot import tcb
from endocarp.rot.dice import ATTEST_LOC, Authority, Cdi, Validity
from endocarp.rot.tcb import TcbInfo
from endocarp.wire import dpe
from endocarp.wire.codec import Struct
from endocarp.wire.dpe import Format, Profile, RawCommand, Status, Support
from endocarp.wire.mailbox import MailboxError
from endocarp.wire.suites import Scheme, Suite

MAX_TCI_NODES = 64
"""The most contexts of all localities, as GetProfile tells: caliptra-dpe, dpe/src/lib.rs."""
PL0_LIMIT = 32
"""The most contexts that the PL0 locality may have, the root included: caliptra-sw, runtime/src/lib.rs."""
CALIPTRA_LOCALITY = 0xFFFFFFFF
"""The locality of the root context, which is no caller's: caliptra-sw, runtime/src/drivers.rs."""
ROOT_TYPE = int.from_bytes(b"RTMR", "little")
CONFIGURATION_TYPE = int.from_bytes(b"CCIV", "little")
VENDOR = int.from_bytes(b"CTRA", "little")
"""What the root of trust calls itself and its own contexts: caliptra-sw, runtime/src/drivers.rs."""
VERSION = (0, 13)
"""Version of the DPE profile."""

SUITE_OF: Mapping[Profile, Suite] = {
    Profile.P384_SHA384: Suite.P384,
    Profile.MLDSA87: Suite.ML_DSA_87,
}
_KEY_INFO = {Suite.P384: b"ECC", Suite.ML_DSA_87: b"MLDSA"}
_CHAIN_SUPPORT = Support.AUTO_INIT | Support.X509


@dataclass(frozen=True)
class Context:
    """One measured component: what was measured of it last and in all, and whose it is."""

    tci_type: int
    current: bytes
    cumulative: bytes
    locality: int
    svn: int

    def node(self) -> bytes:
        """Return what the component adds to the derivation of keys below it."""
        return dpe.TciNodeData(self.tci_type, self.cumulative, self.current, self.locality, self.svn).encode()


@dataclass(frozen=True)
class Issuer:
    """What signs the leaves: the RT alias, its validity, and the chain above the leaf, by suite."""

    authority: Authority
    validity: Validity
    chain: Callable[[Suite], bytes]


class Dpe:
    """The contexts of one boot.

    `cdi` gives the runtime CDI for the length of a `with`; `locality` is the PL0 caller; `journey` and `current`
    are PCR 3 and PCR 2; `configuration` is the digest of what CCIV stands for.
    """

    def __init__(
        self,
        cdi: Callable[[], Cdi],
        issuer: Issuer,
        *,
        locality: int,
        current: bytes,
        journey: bytes,
        configuration: bytes,
    ) -> None:
        self._cdi, self._issuer, self._locality = cdi, issuer, locality
        root = Context(ROOT_TYPE, current, journey, CALIPTRA_LOCALITY, 0)
        self._contexts: tuple[Context, ...] = (root,)
        self._handlers: Mapping[type[dpe.Request[Any]], Callable[[Any, int, Suite], Struct]] = {
            dpe.GetProfile: self._get_profile,
            dpe.CertifyKeyP384: self._certify_key,
            dpe.CertifyKeyMldsa87: self._certify_key,
            dpe.SignP384: self._sign_p384,
            dpe.SignMldsa87: self._sign_mldsa87,
            dpe.GetCertificateChain: self._get_certificate_chain,
        }
        self._add(configuration, CONFIGURATION_TYPE, 0)

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The chain, root first; its last member has the default handle."""
        return self._contexts

    def derive_context(self, measurement: bytes, tci_type: int, svn: int = 0) -> None:
        """Add a component below the default context, which becomes the new default.

        Raises PeerError where its type is one of the root of trust's own, or the locality has as many contexts as it
        may have.
        """
        if tci_type in (ROOT_TYPE, CONFIGURATION_TYPE):
            raise PeerError(
                MailboxError.RUNTIME_STASH_MEASUREMENT_RESERVED_FW_ID, f"firmware {tci_type:#x} is reserved"
            )
        if len(self._contexts) >= PL0_LIMIT:
            raise PeerError(
                MailboxError.RUNTIME_PL0_USED_DPE_CONTEXT_THRESHOLD_REACHED,
                f"the PL0 locality has {PL0_LIMIT} contexts",
            )
        self._add(measurement, tci_type, svn)

    def _add(self, measurement: bytes, tci_type: int, svn: int) -> None:
        context = Context(tci_type, measurement, sha384(bytes(48), measurement), self._locality, svn)
        self._contexts += (context,)

    # --- commands ----------------------------------------------------------------------------------------------

    def execute(self, profile: Profile, locality: int, octets: bytes) -> bytes:
        """Run a DPE command for the caller in `locality`; return the octets of the response.

        What the DPE refuses stands in the response; DecodeError where the octets are no DPE command at all.
        """
        command = dpe.split_command(octets)
        try:
            reply = self._run(profile, locality, command)
        except PeerError as error:
            return dpe.encode_response(profile, error.number)
        return dpe.encode_response(profile, Status.SUCCESS, reply)

    def _run(self, profile: Profile, locality: int, command: RawCommand) -> Struct:
        kind = dpe.COMMANDS[profile].get(command.code)
        # DPE, "Command header": a profile that is not ours makes every command invalid, save GetProfile.
        if kind is None or (kind is not dpe.GetProfile and command.profile != profile):
            raise PeerError(Status.INVALID_COMMAND, f"no DPE command {command.code:#x} in this profile")
        try:
            request = kind.decode(command.body)
        except DecodeError as error:
            raise PeerError(Status.INVALID_ARGUMENT, str(error)) from None
        return self._handlers[kind](request, locality, SUITE_OF[profile])

    def _get_profile(self, request: dpe.GetProfile, locality: int, suite: Suite) -> dpe.GetProfileReply:
        return dpe.GetProfileReply(*VERSION, VENDOR, VENDOR, MAX_TCI_NODES, _CHAIN_SUPPORT)

    def _certify_key(
        self, request: dpe.CertifyKeyP384 | dpe.CertifyKeyMldsa87, locality: int, suite: Suite
    ) -> dpe.CertifyKeyP384Reply | dpe.CertifyKeyMldsa87Reply:
        self._find(request.context_handle, locality)
        if request.flags:
            raise PeerError(Status.INVALID_ARGUMENT, f"flags {request.flags:#x} of CertifyKey")
        if request.format == Format.CSR:
            # deviation: no CMS requests yet; a DPE without support for them answers this.
            raise PeerError(Status.ARGUMENT_NOT_SUPPORTED, "CertifyKey makes certificates only")
        if request.format != Format.X509:
            raise PeerError(Status.INVALID_ARGUMENT, f"format {request.format} of CertifyKey")
        key = self._derive_key(request.label, suite)
        certificate = self._leaf(key, request.label)
        public = key.public.raw
        if suite is Suite.P384:
            return dpe.CertifyKeyP384Reply.of(dpe.DEFAULT_HANDLE, public, certificate)
        return dpe.CertifyKeyMldsa87Reply(dpe.DEFAULT_HANDLE, public, certificate)

    def _sign_p384(self, request: dpe.SignP384, locality: int, suite: Suite) -> dpe.SignP384Reply:
        key = self._signer(request, locality, suite)
        signature = key.sign(Scheme.ECDSA_DIGEST, request.digest)
        return dpe.SignP384Reply.of(dpe.DEFAULT_HANDLE, signature)

    def _sign_mldsa87(self, request: dpe.SignMldsa87, locality: int, suite: Suite) -> dpe.SignMldsa87Reply:
        key = self._signer(request, locality, suite)
        signature = key.sign(Scheme.ML_DSA_MU, request.mu)
        return dpe.SignMldsa87Reply(dpe.DEFAULT_HANDLE, signature + b"\x00")

    def _signer(self, request: dpe.SignP384 | dpe.SignMldsa87, locality: int, suite: Suite) -> PrivateKey:
        self._find(request.context_handle, locality)
        if request.flags:
            # deviation: no raw messages yet; a DPE without support for them answers this.
            raise PeerError(Status.ARGUMENT_NOT_SUPPORTED, f"flags {request.flags:#x} of Sign")
        return self._derive_key(request.label, suite)

    def _get_certificate_chain(
        self, request: dpe.GetCertificateChain, locality: int, suite: Suite
    ) -> dpe.GetCertificateChainReply:
        chain = self._issuer.chain(suite)
        if request.size > dpe.MAX_CHUNK_SIZE:
            raise PeerError(Status.INVALID_ARGUMENT, f"a piece of {request.size} octets")
        if request.offset >= len(chain):
            raise PeerError(Status.PLATFORM_INVALID_OFFSET, f"the chain has {len(chain)} octets")
        return dpe.GetCertificateChainReply.of(chain[request.offset : request.offset + request.size])

    # --- contexts, keys and leaves -----------------------------------------------------------------------------

    def _find(self, handle: bytes, locality: int) -> None:
        # DPE, "Locality": the locality is looked at first, and no handle of another one is told apart.
        if locality != self._locality:
            raise PeerError(Status.INVALID_LOCALITY, f"locality {locality} has no context")
        if not equal(handle, dpe.DEFAULT_HANDLE):
            raise PeerError(Status.INVALID_HANDLE, "no context has this handle")

    def _derive_key(self, label: bytes, suite: Suite) -> PrivateKey:
        """Return the key of the default context for this label."""
        # Caliptra runtime, "DPE": CertifyKey and Sign derive by the same words, or their keys would differ.
        context = sha384(self._measurement_hash(), b"DPE")
        with (
            self._cdi() as root,
            kdf_sha384(root, b"derive_cdi", context, kind=Cdi) as cdi,
            kdf_sha384(cdi, label, _KEY_INFO[suite], kind=Secret) as seed,
        ):
            if suite is Suite.P384:
                with p384_scalar(seed) as scalar:
                    return p384_from_scalar(scalar)
            with mldsa_seed(seed) as xi:
                return mldsa87_from_seed(xi)

    def _measurement_hash(self) -> bytes:
        # Every context of this chain may have X.509 certificates, which its last octet says.
        return sha384(*(context.node() + b"\x01" for context in reversed(self._contexts)))

    def _leaf(self, key: PrivateKey, label: bytes) -> bytes:
        number = sha384(key.public.raw).hex().upper()[:64]
        return self._issuer.authority.issue(
            key.public,
            Name("DPE Leaf", number, printable=True),
            [
                tcb.multi_tcb_info([_component(context) for context in self._contexts]),
                certs.ueid(label),
                certs.basic_constraints(None),
                certs.key_usage((KeyUsage.DIGITAL_SIGNATURE,)),
                certs.extended_key_usage((ATTEST_LOC,), critical=True),
            ],
            validity=self._issuer.validity,
            # DPE, "Certificates": the serial number is the first 20 characters of that text.
            serial=number[:20].encode("ascii"),
        )


def _component(context: Context) -> TcbInfo:
    return TcbInfo(
        fwid=context.current,
        type=context.tci_type.to_bytes(4, "little"),
        svn=tcb.natural_svn(context.svn),
        vendor_info=context.locality.to_bytes(4, "big"),
        cumulative=context.cumulative,
    )
