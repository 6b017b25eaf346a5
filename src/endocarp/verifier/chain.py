"""Certificate chains: from an anchor that the relying party gave, link by link, to the key that signed.

The chains of a root of trust are straight and short, so no path is searched: each certificate has its place, and at
each link everything is checked that can be, whether or not something above it has failed. Dates are compared as
text; a device has no clock, so Caliptra's run from 2023 to 9999.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from endocarp.crypto.certs import Certificate, KeyUsage, key_id
from endocarp.crypto.digest import sha256, sha384
from endocarp.errors import DecodeError
from endocarp.verifier.extensions import MULTI_TCB_INFO, PURPOSES, TCB_INFO, UEID, read_purposes, read_ueid
from endocarp.verifier.rules import ANCHORED, SUITE_NAMES
from endocarp.verifier.verdict import Ledger
from endocarp.wire import pem
from endocarp.wire.evidence import SUITES, Chain
from endocarp.wire.suites import Suite

MODEL = "MODEL"
"""What the name of a root says under which no silicon stands."""

# The extensions that are looked at in every certificate; only these, and the one that measures, may be critical.
_UNDERSTOOD = frozenset({"2.5.29.14", "2.5.29.15", "2.5.29.19", "2.5.29.35", PURPOSES, UEID})

_SUITE_TITLES = {Suite.P384: "Ecc384", Suite.ML_DSA_87: "MlDsa87"}
_TCG_PURPOSES = "2.23.133.5.4.100"


@dataclass(frozen=True)
class Place:
    """What a certificate must be at its place in the chain.

    `name` is what identifiers of rules call the place. In `common_name`, `{}` stands for the suite; `digest` is taken
    of the raw key, and its first 64 digits are the serial number in the subject. `below` is how many authorities
    stand under the certificate, or None where it may not be one. `purposes` are the last arcs of the TCG's key
    purposes. `measures` is the extension that tells what was measured. `subject` tells places of one name apart in
    findings.
    """

    name: str
    common_name: str
    below: int | None
    usages: frozenset[KeyUsage]
    purposes: frozenset[int]
    measures: str = ""
    digest: Callable[[bytes], bytes] = sha256
    subject: str = ""


_SIGNS, _CERTIFIES = KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_CERT_SIGN
_IDENTITY_INIT, _IDENTITY_LOC, _ATTEST_LOC, _ECA = 6, 7, 9, 12
_CA, _RT, _LEAF = frozenset({_CERTIFIES}), frozenset({_CERTIFIES, _SIGNS}), frozenset({_SIGNS})

CHAIN = (
    Place("idevid", "Caliptra 2.1 {} IDevID", 3, _CA, frozenset({_IDENTITY_INIT, _ECA})),
    Place("ldevid", "Caliptra 2.1 {} LDevID", 2, _CA, frozenset({_IDENTITY_LOC, _ECA})),
    Place("fmc_alias", "Caliptra 2.1 {} FMC Alias", 1, _CA, frozenset({_ECA, _ATTEST_LOC}), MULTI_TCB_INFO),
    Place("rt_alias", "Caliptra 2.1 {} Rt Alias", 0, _RT, frozenset({_ECA}), TCB_INFO),
    Place("dpe_leaf", "DPE Leaf", None, _LEAF, frozenset({_ATTEST_LOC}), MULTI_TCB_INFO, sha384),
)
"""What each certificate of a chain must be, root side first."""


def partition_place(number: int) -> Place:
    """Return what the certificate of a partition's identity must be; the RT alias stands above it."""
    return Place(
        "partition",
        f"Endocarp Partition {number}",
        None,
        _LEAF,
        frozenset({_ATTEST_LOC}),
        TCB_INFO,
        subject=f"partition {number}",
    )


_AUTHORITIES_BELOW_ANCHOR = 4
_SERIAL_NUMBER_DIGITS = 64


@dataclass(frozen=True)
class Anchor:
    """A root that the relying party trusts, under the name that it gave: one certificate a suite."""

    name: str
    certificates: Mapping[Suite, Certificate]

    @classmethod
    def from_pem(cls, name: str, text: str) -> "Anchor":
        """Read an anchor file: two certificates, P-384 and ML-DSA-87, in any order. Raises DecodeError."""
        found = [_parse(octets) for octets in pem.decode(pem.CERTIFICATE, text)]
        certificates = {certificate.public.suite: certificate for certificate in found}
        if set(certificates) != set(SUITES) or len(found) != len(SUITES):
            raise DecodeError(f"anchor {name}", "takes one certificate in P-384 and one in ML-DSA-87")
        return cls(name, certificates)

    @property
    def model(self) -> str:
        """The common name of a model root, or nothing where no certificate says that it is one."""
        names = (certificate.common_name for certificate in self.certificates.values())
        return next((name for name in names if MODEL in name.upper()), "")


@dataclass(frozen=True)
class Identities:
    """The certificates that could be read, by suite and place, and the anchor that each chain was found to end at.

    Whether they hold, the ledger says: nothing here is trusted for being here.
    """

    certificates: Mapping[Suite, Mapping[str, Certificate]]
    anchors: Mapping[Suite, Anchor]

    def find(self, suite: Suite, place: str) -> Certificate | None:
        """Return the certificate at this place, or None where it could not be read."""
        return self.certificates.get(suite, {}).get(place)


def stamp(now: float) -> str:
    """Return a moment, in seconds of Unix time, as certificates write it: YYYYMMDDHHMMSSZ."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%SZ")


def verify_chains(
    ledger: Ledger, chains: Mapping[Suite, Chain], anchors: Mapping[str, Anchor], now: float
) -> Identities:
    """Check both chains down to the DPE leaf, against the anchors by the names that they were given under."""
    certificates: dict[Suite, Mapping[str, Certificate]] = {}
    found: dict[Suite, Anchor] = {}
    for suite in SUITES:
        present = suite in chains
        ledger.check(
            f"chain.present.{SUITE_NAMES[suite]}",
            good=present,
            held=f"{len(CHAIN)} certificates",
            failed="the evidence has no chain in this suite; both are needed",
        )
        if present:
            certificates[suite] = _read_chain(ledger, suite, chains[suite])
            anchor = _verify_chain(ledger, suite, certificates[suite], anchors, now)
            if anchor is not None:
                found[suite] = anchor
    _check_anchor(ledger, found)
    _check_device(ledger, certificates)
    return Identities(certificates, found)


def _read_chain(ledger: Ledger, suite: Suite, chain: Chain) -> Mapping[str, Certificate]:
    read = {}
    for place in CHAIN:
        certificate = read_certificate(ledger, suite, place, getattr(chain, place.name))
        if certificate is not None:
            read[place.name] = certificate
    return read


def read_certificate(ledger: Ledger, suite: Suite, place: Place, octets: bytes) -> Certificate | None:
    """Read one certificate, and note whether that was possible and whether it is of its suite."""
    rule, subject = f"chain.decode.{place.name}.{SUITE_NAMES[suite]}", place.subject
    try:
        certificate = _parse(octets)
    except DecodeError as error:
        ledger.fail(rule, str(error), subject=subject)
        return None
    ledger.check(rule, good=True, held=f"{certificate.common_name}", failed="", subject=subject)
    ledger.check(
        f"chain.suite.{place.name}.{SUITE_NAMES[suite]}",
        good=certificate.public.suite is suite and certificate.suite is suite,
        held=f"{suite.name} key, {suite.name} signature",
        failed=f"a {certificate.public.suite.name} key under a {certificate.suite.name} signature",
        subject=subject,
    )
    return certificate


def _parse(octets: bytes) -> Certificate:
    """Read a certificate and everything in it that rules look at, so that what is malformed there shows here."""
    certificate = Certificate.parse(octets)
    _ = (certificate.key_id, certificate.authority_key_id, certificate.is_authority, certificate.key_usage)
    _ = (certificate.common_name, certificate.serial_number, purposes_of(certificate))
    return certificate


def _verify_chain(
    ledger: Ledger,
    suite: Suite,
    certificates: Mapping[str, Certificate],
    anchors: Mapping[str, Anchor],
    now: float,
) -> Anchor | None:
    first = certificates.get(CHAIN[0].name)
    anchor = None if first is None else _find_anchor(ledger, suite, first, anchors, now)
    parent = None if anchor is None else anchor.certificates[suite]
    for place in CHAIN:
        certificate = certificates.get(place.name)
        if certificate is not None:
            verify_link(ledger, suite, place, certificate, parent, now)
        parent = certificate
    return anchor


def _find_anchor(
    ledger: Ledger, suite: Suite, first: Certificate, anchors: Mapping[str, Anchor], now: float
) -> Anchor | None:
    signers = [one for one in anchors.values() if first.signed_by(one.certificates[suite].public)]
    # The same root may have been given under several names: its own goes before the others.
    anchor = next((one for one in signers if one.model in ("", one.name)), signers[0] if signers else None)
    given = ", ".join(sorted(anchors)) or "none"
    ledger.check(
        f"anchor.signature.{SUITE_NAMES[suite]}",
        good=anchor is not None,
        held="it has signed the IDevID certificate",
        failed=f"no anchor that was given has signed the IDevID certificate; given: {given}",
        reference="" if anchor is None else anchor.name,
    )
    if anchor is not None:
        _check_root(ledger, suite, anchor.certificates[suite], now)
    return anchor


def _check_root(ledger: Ledger, suite: Suite, root: Certificate, now: float) -> None:
    name, moment = SUITE_NAMES[suite], stamp(now)
    ledger.check(
        f"anchor.validity.{name}",
        good=root.not_before <= moment <= root.not_after,
        held=f"{root.not_before} to {root.not_after}",
        failed=f"{root.not_before} to {root.not_after}, now is {moment}",
    )
    length = root.path_length
    ledger.check(
        f"anchor.constraints.{name}",
        good=root.is_authority and (length is None or length >= _AUTHORITIES_BELOW_ANCHOR),
        held=f"an authority, path length {length}",
        failed=f"authority: {root.is_authority}, path length {length}",
    )


def verify_link(
    ledger: Ledger,
    suite: Suite,
    place: Place,
    certificate: Certificate,
    parent: Certificate | None,
    now: float,
) -> None:
    """Check one certificate at its place, and against the one above it where that is there.

    Without a parent the rules about it stay unreached; the others are checked all the same.
    """
    link = _Link(ledger, place, suite)
    if parent is not None:
        _check_parent(link, certificate, parent)
    _check_validity(link, certificate, stamp(now))
    _check_place(link, certificate)
    _check_name(link, certificate)


@dataclass(frozen=True)
class _Link:
    """One certificate in its chain, and where to note what is found about it."""

    ledger: Ledger
    place: Place
    suite: Suite

    def check(self, rule: str, *, good: bool, held: str, failed: str) -> None:
        rule = f"chain.{rule}.{self.place.name}.{SUITE_NAMES[self.suite]}"
        self.ledger.check(rule, good=good, held=held, failed=failed, subject=self.place.subject)


def _check_parent(link: _Link, certificate: Certificate, parent: Certificate) -> None:
    name = parent.common_name
    if ("chain.signature", link.place.name) != ANCHORED:
        link.check(
            "signature",
            good=certificate.signed_by(parent.public),
            held=f"by {name}",
            failed=f"the key of {name} did not sign this",
        )
    link.check(
        "issuer",
        good=certificate.issuer == parent.subject,
        held=name,
        failed=f"it names another issuer than {name}",
    )
    # RFC 5280, 4.2.1.1: the identifier of the issuer's key is the one that the issuer's own certificate gives.
    expected = parent.key_id or key_id(parent.public)
    link.check(
        "authority_key",
        good=certificate.authority_key_id == expected,
        held=expected.hex(),
        failed=f"{(certificate.authority_key_id or b'').hex() or 'nothing'}, {expected.hex()} expected",
    )


def _check_validity(link: _Link, certificate: Certificate, moment: str) -> None:
    dates = f"{certificate.not_before} to {certificate.not_after}"
    link.check(
        "validity",
        good=certificate.not_before <= moment <= certificate.not_after,
        held=dates,
        failed=f"{dates}, now is {moment}",
    )


def _check_place(link: _Link, certificate: Certificate) -> None:
    place, length = link.place, certificate.path_length
    if place.below is None:
        good = not certificate.is_authority
    else:
        # RFC 5280, 4.2.1.9: an authority has room for those below it.
        # The limit itself, which the RFC leaves to the issuer, is our demand: without it a chain could be made longer
        # than Caliptra's.
        good = certificate.is_authority and length is not None and length >= place.below
    what = f"an authority, path length {length}" if certificate.is_authority else "no authority"
    link.check("constraints", good=good, held=what, failed=what)
    # Caliptra certificates: each place has its usages and purposes, and no others.
    usages = ", ".join(sorted(usage.name.lower() for usage in certificate.key_usage)) or "none"
    link.check("key_usage", good=certificate.key_usage == place.usages, held=usages, failed=usages)
    purposes = purposes_of(certificate)
    expected = {f"{_TCG_PURPOSES}.{last}" for last in place.purposes}
    what = ", ".join(sorted(purposes)) or "none"
    link.check("purposes", good=purposes == expected, held=what, failed=what)
    # RFC 5280, 4.2: a certificate with a critical extension that is not understood may not be used.
    critical = {oid for oid, extension in certificate.extensions.items() if extension.critical}
    unknown = critical - _UNDERSTOOD - {place.measures}
    link.check("critical", good=not unknown, held="none", failed=", ".join(sorted(unknown)))


def _check_name(link: _Link, certificate: Certificate) -> None:
    # Caliptra certificates: the subject is a fixed name and a digest of the key: SHA-256, of a DPE leaf SHA-384, cut.
    found, expected = certificate.common_name, link.place.common_name.format(_SUITE_TITLES[link.suite])
    number = link.place.digest(certificate.public.raw).hex().upper()[:_SERIAL_NUMBER_DIGITS]
    link.check(
        "name",
        good=found == expected and certificate.serial_number == number,
        held=found,
        failed=f"{found!r}, {expected!r} expected"
        if found != expected
        else f"{found!r} has the serial number of another key",
    )


def purposes_of(certificate: Certificate) -> frozenset[str]:
    """Return the purposes that a certificate gives its key; none where it does not say. Raises DecodeError."""
    extension = certificate.extensions.get(PURPOSES)
    return frozenset() if extension is None else read_purposes(extension.value)


def _check_anchor(ledger: Ledger, found: Mapping[Suite, Anchor]) -> None:
    names = {anchor.name for anchor in found.values()}
    if len(found) == len(SUITES):
        ledger.check(
            "anchor.same",
            good=len(names) == 1,
            held="both chains",
            failed=f"one chain ends at each of {', '.join(sorted(names))}",
            reference=", ".join(sorted(names)),
        )
    for anchor in found.values():
        # A root without silicon under it is never accepted as if it were one: it goes by its own name, or not.
        ledger.check(
            "anchor.model",
            good=not anchor.model or anchor.model == anchor.name,
            held=f"{anchor.model} was given by this name" if anchor.model else "not a model",
            failed=f"{anchor.model} is a model root, given under the name {anchor.name}",
            reference=anchor.name,
        )


def _check_device(ledger: Ledger, certificates: Mapping[Suite, Mapping[str, Certificate]]) -> None:
    ueids: dict[str, bytes] = {}
    for suite, chain in certificates.items():
        for place, certificate in chain.items():
            # The UEID of the DPE leaf is its label; the rule `envelope.label` looks at it.
            if place != "dpe_leaf":
                ueids[f"{place}.{SUITE_NAMES[suite]}"] = ueid_of(certificate)
    if not ueids:
        return
    values = set(ueids.values())
    missing = [place for place, ueid in ueids.items() if not ueid]
    ledger.check(
        "chain.device",
        good=len(values) == 1 and not missing,
        held=f"UEID {next(iter(values)).hex()} in {len(ueids)} certificates",
        failed=f"without a UEID: {', '.join(missing)}" if missing else f"{len(values)} different UEIDs",
    )


def ueid_of(certificate: Certificate) -> bytes:
    """Return the UEID of a certificate: of the device, or the label of a DPE leaf; nothing where it has none."""
    extension = certificate.extensions.get(UEID)
    try:
        return b"" if extension is None else read_ueid(extension.value)
    except DecodeError:
        return b""
