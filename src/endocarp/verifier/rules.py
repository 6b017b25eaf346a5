"""Every rule that a verdict can name: its identifier, and what it says as a sentence.

Identifiers are stable: documentation, tests and policies name them. Their first part is the section of the verdict;
a rule that is checked once a suite ends in `ecc384` or `ml_dsa_87`, and rules on certificates name the certificate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from endocarp.wire.suites import Suite

SUITE_NAMES: Mapping[Suite, str] = MappingProxyType({Suite.P384: "ecc384", Suite.ML_DSA_87: "ml_dsa_87"})
"""How identifiers spell the two suites."""

CERTIFICATES: Mapping[str, str] = MappingProxyType(
    {
        "idevid": "IDevID",
        "ldevid": "LDevID",
        "fmc_alias": "FMC alias",
        "rt_alias": "RT alias",
        "dpe_leaf": "DPE leaf",
        "partition": "partition identity",
    }
)
"""The certificates of a chain, root side first, then the one that stands beside the DPE leaf."""

IMAGES = ("box", "front", "vault")
"""The images whose digests the SoC manifest lists and the server stashes."""


ANCHORED = ("chain.signature", "idevid")
"""The link that has no rule of its own: `anchor.signature` finds the anchor by it."""


@dataclass(frozen=True)
class Rule:
    """What must hold, as a sentence; `compared` says that it holds only against a reference that is named."""

    sentence: str
    compared: bool = False


SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "nonce": "Freshness",
        "envelope": "Envelope",
        "anchor": "Trust anchor",
        "chain": "Certificate chains",
        "quote": "Quote",
        "log": "Measurement log",
        "tcb": "Measurements in certificates",
        "info": "Firmware information",
        "image": "Reference values",
        "policy": "Policy",
        "report": "Partition reports",
    }
)
"""The sections of a verdict in their order: first part of the identifiers, and title."""

_ONCE = {
    "nonce.challenge": Rule("the evidence answers the challenge that was given out", compared=True),
    "envelope.decode": Rule("the evidence is one COSE_Sign object in deterministic form"),
    "envelope.content_type": Rule("the object says that it is evidence"),
    "envelope.payload": Rule("what is signed is a payload of our profile"),
    "envelope.rt_alias": Rule("the evidence names the RT alias key of its own P-384 chain"),
    "anchor.same": Rule("both chains end at the same anchor", compared=True),
    "anchor.model": Rule("a model root is accepted only under its own name", compared=True),
    "chain.device": Rule("every certificate of both chains speaks of the same device"),
    "quote.agree": Rule("both quotes show the same registers"),
    "quote.unused": Rule("registers that nobody may extend are zero"),
    "log.decode": Rule("the measurement log can be read"),
    "log.sequence": Rule("the log has the entries of one cold boot, in their order"),
    "log.device_status": Rule("the log says in which state the device is"),
    "log.pcr0": Rule("the log gives PCR 0: device status, keys and FMC of this boot"),
    "log.pcr1": Rule("the log gives PCR 1: the same since the last cold boot"),
    "log.pcr2": Rule("the log gives PCR 2: the runtime of this boot"),
    "log.pcr3": Rule("the log gives PCR 3: the same since the last cold boot"),
    "log.pcr31": Rule("the list of stashed images gives PCR 31"),
    "info.decode": Rule("FW_INFO, which box passes on unsigned, can be read"),
    "info.consistent": Rule("FW_INFO says what the log says"),
    "image.vendor_keys.reference": Rule("the vendor's keys are the expected ones", compared=True),
    "image.owner_keys.reference": Rule("the owner's keys are the expected ones", compared=True),
    "image.fmc.reference": Rule("the FMC is the expected one", compared=True),
    "image.runtime.reference": Rule("the runtime is the expected one", compared=True),
    "image.rom.reference": Rule("the ROM is the expected one, by box's word in FW_INFO", compared=True),
    "image.manifest.reference": Rule(
        "the SoC manifest is the expected one, by box's word in FW_INFO", compared=True
    ),
    "image.known": Rule("every stashed image is one that a reference speaks of"),
    "policy.svn": Rule("firmware is not older than the reference", compared=True),
    "policy.lifecycle": Rule("the device is in production"),
    "policy.debug": Rule("debugging is locked"),
    "policy.anti_rollback": Rule("anti-rollback is not disabled in the fuses"),
    "policy.attestation": Rule("attestation has not been switched off, by box's word in FW_INFO"),
    "policy.partitions": Rule("at least one partition reports, and none twice"),
    "report.decode": Rule("the report is one COSE_Sign object in deterministic form"),
    "report.content_type": Rule("the object says that it is a partition report"),
    "report.payload": Rule("what is signed is a report of our profile"),
    "report.nonce": Rule("the report answers the same challenge"),
    "report.rt_alias": Rule("the report names the RT alias of the evidence"),
    "report.image": Rule("the report names the vault image that was stashed"),
}
_IMAGE = {"image.{}.reference": Rule("the digest that was stashed for {} is the expected one", compared=True)}
_SUITE = {
    "envelope.signature.{}": Rule("the DPE leaf has signed the evidence ({})"),
    "envelope.key.{}": Rule("the signature names the key of the DPE leaf ({})"),
    "envelope.label.{}": Rule("the DPE leaf was derived for this challenge ({})"),
    "anchor.signature.{}": Rule("a given anchor has signed the IDevID certificate ({})", compared=True),
    "anchor.validity.{}": Rule("the anchor is within its dates ({})"),
    "anchor.constraints.{}": Rule("the anchor may sign as many authorities as there are ({})"),
    "chain.present.{}": Rule("there is a chain ({})"),
    "quote.present.{}": Rule("there is a quote ({})"),
    "quote.decode.{}": Rule("the quote can be read ({})"),
    "quote.nonce.{}": Rule("the quote answers the same challenge ({})"),
    "quote.digest.{}": Rule("the digest in the quote is that of its registers and nonce ({})"),
    "quote.signature.{}": Rule("the FMC alias has signed the quote ({})"),
    "tcb.decode.{}": Rule("what the certificates measure can be read ({})"),
    "tcb.owner_fuses.{}": Rule("FMC alias: owner and fuses as in the log ({})"),
    "tcb.vendor_fuses.{}": Rule("FMC alias: vendor, life cycle and debug state as in the log ({})"),
    "tcb.fmc.{}": Rule("FMC alias: the FMC of the log ({})"),
    "tcb.runtime.{}": Rule("RT alias: the runtime of the log ({})"),
    "tcb.root.{}": Rule("DPE leaf: its root context shows PCR 2 and PCR 3 ({})"),
    "tcb.stash.{}": Rule("DPE leaf: its contexts are the stashed images, in order ({})"),
    "report.signature.{}": Rule("the partition's identity has signed the report ({})"),
    "report.key.{}": Rule("the signature names the certified key ({})"),
    "report.identity.{}": Rule("the RT alias has certified the identity for this partition and image ({})"),
}
_CERTIFICATE = {
    "chain.decode": "the certificate of {} can be read",
    "chain.suite": "key and signature of {} are of the suite of the chain",
    "chain.signature": "{} is signed by the key above it",
    "chain.issuer": "{} names the one above it as its issuer",
    "chain.authority_key": "{} names the key above it",
    "chain.validity": "{} is within its dates",
    "chain.constraints": "{} may be where it stands in the chain",
    "chain.key_usage": "the key of {} may do what it does",
    "chain.purposes": "the key of {} has the purposes of its place",
    "chain.critical": "{} has no critical extension that is not understood",
    "chain.name": "{} has the name of its place",
}


def _all() -> Iterator[tuple[str, Rule]]:
    yield from _ONCE.items()
    for rule_id, rule in _IMAGE.items():
        for image in IMAGES:
            yield rule_id.format(image), Rule(rule.sentence.format(image), rule.compared)
    for suite in SUITE_NAMES.values():
        for rule_id, rule in _SUITE.items():
            yield rule_id.format(suite), Rule(rule.sentence.format(suite), rule.compared)
        for rule_id, sentence in _CERTIFICATE.items():
            for part, title in CERTIFICATES.items():
                if (rule_id, part) != ANCHORED:
                    yield f"{rule_id}.{part}.{suite}", Rule(f"{sentence.format(title)} ({suite})")


RULES: Mapping[str, Rule] = MappingProxyType(dict(_all()))
"""Every rule by its identifier. A verdict accepts only where each of them was reached and held."""


_READ_FIRST = frozenset({"report.decode", "report.content_type", "report.payload"})
PER_PARTITION = frozenset(
    rule
    for rule in RULES
    if (rule.startswith("report.") and rule not in _READ_FIRST) or ".partition." in rule
)
"""The rules that must be reached once for every partition whose report could be read."""


def section_of(rule: str) -> str:
    """Return the section that a rule belongs to: the first part of its identifier."""
    return rule.partition(".")[0]
