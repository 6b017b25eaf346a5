"""The appraisal as a whole: an honest server is believed, and every way to spoil its evidence fails by its rule."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import pytest
from tests.simulators.device import (
    MODEL,
    NONCE,
    NOW,
    DeviceSimulator,
    Plan,
    key,
    references,
    sha384,
    tcb_info,
)
from tests.simulators.relying import failed, judge, unreached

from endocarp.crypto import certs
from endocarp.crypto.certs import Certificate, KeyUsage, Name
from endocarp.errors import VerificationError
from endocarp.verifier.chain import Anchor
from endocarp.verifier.extensions import TCB_INFO
from endocarp.verifier.policy import ReferenceValues
from endocarp.verifier.rules import ANCHORED, CERTIFICATES, RULES, SUITE_NAMES
from endocarp.verifier.verdict import Outcome, Verdict
from endocarp.wire import der
from endocarp.wire.cose import SUITE, SignedMessage
from endocarp.wire.evidence import CHAIN_ORDER, REPORT_TYPE, SUITES, Evidence, StashEntry
from endocarp.wire.mailbox import DataReply, with_headers
from endocarp.wire.suites import Suite

NAMES = tuple(SUITE_NAMES.values())
ANY = frozenset({"*"})
"""Other rules may break too: what a certificate says is looked at in several places."""


def both(*rules: str) -> set[str]:
    return {f"{rule}.{name}" for rule in rules for name in NAMES}


def of(device: DeviceSimulator, **changes: object) -> bytes:
    """Return the evidence of a device, some of its payload replaced before its own leaf signed it."""
    return device.sign(replace(device.evidence(), **changes)).encode()  # type: ignore[arg-type]


# --- an honest server -----------------------------------------------------------------------------------------


def test_an_honest_server_is_believed() -> None:
    verdict = judge(DeviceSimulator().issue())
    assert verdict.accepted
    assert failed(verdict) == unreached(verdict) == set()
    assert verdict.context == {
        "references": MODEL,
        "anchors given": MODEL,
        "anchor": MODEL,
        "nonce": NONCE.hex(),
    }


def test_every_rule_that_compares_names_its_reference() -> None:
    verdict = judge(DeviceSimulator().issue())
    held = [one for one in verdict.findings if one.outcome is Outcome.HELD]
    assert {one.rule for one in held} == set(RULES)
    assert [one.rule for one in held if RULES[one.rule].compared and not one.reference] == []
    assert {one.reference for one in held if one.rule.startswith("anchor.sig")} == {MODEL}


def test_what_is_only_modelled_shows_in_an_accepted_verdict() -> None:
    plain = json.loads(judge(DeviceSimulator().issue()).to_json())
    assert plain["verdict"] == "VERIFIED"
    said = {(one["subject"], one["status"], one["by"]) for one in plain["statements"]}
    assert ("root of trust", "modelled", "verifier") in said
    assert ("root of trust", "modelled", "server") in said
    assert ("images of box and front", "reported", "verifier") in said


def test_a_newer_server_than_the_references_ask_for_is_believed() -> None:
    assert judge(DeviceSimulator(svn=6).issue()).accepted


# --- one thing spoilt -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoilt:
    """Evidence with one thing wrong: the rule that it breaks, and those that break with it."""

    rule: str
    octets: Callable[[], bytes]
    also: frozenset[str] = frozenset()
    nonce: bytes | None = NONCE
    now: float = NOW
    anchors: Callable[[], dict[str, Anchor]] | None = None
    expected: ReferenceValues | None = None

    def judge(self) -> Verdict:
        anchors = None if self.anchors is None else self.anchors()
        return judge(self.octets(), anchors=anchors, expected=self.expected, nonce=self.nonce, now=self.now)


Edit = Callable[[Plan], Plan]
UNKNOWN = certs.extension("1.2.3.4", der.null(), critical=True)


def with_extension(name: str, octets: bytes) -> Edit:
    return lambda plan: plan.with_extension(name, octets)


def with_changes(**changes: object) -> Edit:
    return lambda plan: replace(plan, **changes)  # type: ignore[arg-type]


def edited(place: str, suite: Suite, edit: Edit) -> Callable[[], bytes]:
    return DeviceSimulator(edits={(place, suite): edit}).issue


def chain_with(place: str, suite: Suite, octets: bytes) -> Callable[[], bytes]:
    """Return evidence with another certificate at one place."""

    def issue() -> bytes:
        device = DeviceSimulator()
        evidence = device.evidence()
        if place == "partition":
            report = evidence.partitions[0]
            swapped = replace(report, certificates={**report.certificates, suite: octets})
            return of(device, partitions=(swapped,))
        chain = replace(evidence.chains[suite], **{place: octets})
        return of(device, chains={**evidence.chains, suite: chain})

    return issue


def _constraints(place: str) -> bytes:
    return certs.basic_constraints(
        0 if place in ("dpe_leaf", "partition", "idevid", "ldevid", "fmc_alias") else None
    )


def _in_chains() -> Iterator[Spoilt]:
    """Yield every rule on every certificate."""
    for place in CERTIFICATES:
        for suite, name in SUITE_NAMES.items():
            stranger, other = key("stranger", suite), next(one for one in SUITES if one is not suite)
            edits: dict[str, Edit] = {
                "suite": with_changes(public=key(place, other).public),
                "signature": with_changes(signer=stranger),
                "issuer": with_changes(issuer=Name("Somebody else").der()),
                "authority_key": lambda plan: plan.without("authority_key_id"),
                "validity": with_changes(not_after="20240101000000Z"),
                "constraints": with_extension("constraints", _constraints(place)),
                "key_usage": with_extension("key_usage", certs.key_usage((KeyUsage.CRL_SIGN,))),
                "purposes": lambda plan: plan.without("purposes"),
                "critical": with_extension("unknown", UNKNOWN),
                "name": with_changes(subject=Name("Somebody else")),
            }
            for rule, edit in edits.items():
                if (f"chain.{rule}", place) != ANCHORED:
                    yield Spoilt(f"chain.{rule}.{place}.{name}", edited(place, suite, edit), ANY)
            yield Spoilt(f"chain.decode.{place}.{name}", chain_with(place, suite, b"no certificate"))


def _without(suite: Suite) -> Iterator[Spoilt]:
    """Yield evidence in which this suite is missing somewhere."""
    name = SUITE_NAMES[suite]

    def bare(part: str) -> bytes:
        device = DeviceSimulator()
        rest = {one: value for one, value in getattr(device.evidence(), part).items() if one is not suite}
        return of(device, **{part: rest})

    yield Spoilt(f"chain.present.{name}", lambda: bare("chains"))
    yield Spoilt(f"quote.present.{name}", lambda: bare("quotes"))
    yield Spoilt(f"envelope.signature.{name}", lambda: _strip(DeviceSimulator().issue(), suite))
    yield Spoilt(f"report.signature.{name}", lambda: _with_report(lambda octets: _strip(octets, suite)))


def _strip(octets: bytes, suite: Suite) -> bytes:
    """Take the signature of one suite off a message."""
    message = SignedMessage.decode(octets)
    kept = tuple(one for one in message.signatures if SUITE[one.algorithm] is not suite)
    return replace(message, signatures=kept).encode()


def _with_report(change: Callable[[bytes], bytes]) -> bytes:
    device = DeviceSimulator()
    partition = device.partition()
    return of(device, partitions=(replace(partition, report=change(partition.report)),))


def _rename_key(octets: bytes, suite: Suite) -> bytes:
    message = SignedMessage.decode(octets)
    return replace(
        message,
        signatures=tuple(
            replace(one, key_id=bytes(20)) if SUITE[one.algorithm] is suite else one
            for one in message.signatures
        ),
    ).encode()


def _per_suite() -> Iterator[Spoilt]:
    """Yield what can be wrong once a suite, outside the links of chains."""
    for suite, name in SUITE_NAMES.items():
        yield from _without(suite)
        yield Spoilt(
            f"envelope.key.{name}",
            partial(_rename_key, DeviceSimulator().issue(), suite),
            frozenset({f"envelope.signature.{name}"}),
        )
        yield Spoilt(
            f"report.key.{name}",
            partial(_with_report, partial(_rename_key, suite=suite)),
            frozenset({f"report.signature.{name}"}),
        )
        label = certs.ueid(sha384(b"endocarp evidence", bytes(32)))
        yield Spoilt(
            f"envelope.label.{name}",
            edited("dpe_leaf", suite, with_extension("ueid", label)),
        )
        yield Spoilt(
            f"report.identity.{name}",
            edited(
                "partition",
                suite,
                lambda plan: plan.with_extension("tcb", DeviceSimulator().partition_tcb(1)),
            ),
        )
        for rule, place, octets in (
            ("tcb.decode", "rt_alias", certs.extension(TCB_INFO, b"damaged")),
            ("tcb.owner_fuses", "fmc_alias", DeviceSimulator(anti_rollback_disable=1).fmc_tcb()),
            ("tcb.vendor_fuses", "fmc_alias", DeviceSimulator(lifecycle=1).fmc_tcb()),
            ("tcb.fmc", "fmc_alias", DeviceSimulator(fmc_digest=sha384(b"x")).fmc_tcb()),
            ("tcb.runtime", "rt_alias", _runtime(sha384(b"x"), 0x105)),
            ("tcb.root", "dpe_leaf", DeviceSimulator(runtime_digest=sha384(b"x")).leaf_tcb()),
            ("tcb.stash", "dpe_leaf", DeviceSimulator(stash=DeviceSimulator().stash[:2]).leaf_tcb()),
        ):
            yield Spoilt(f"{rule}.{name}", edited(place, suite, with_extension("tcb", octets)))
        yield from _quotes(suite)
        yield from _anchors(suite)


def _runtime(digest: bytes, svn: int) -> bytes:
    return certs.extension(TCB_INFO, tcb_info(kind=b"CALIPTRA_2_X_RT_FIRMWARE_INFO", fwid=digest, svn=svn))


def _quotes(suite: Suite) -> Iterator[Spoilt]:
    name = SUITE_NAMES[suite]

    def quoted(quote: bytes) -> bytes:
        return of(DeviceSimulator(), quotes={**DeviceSimulator().evidence().quotes, suite: quote})

    honest = DeviceSimulator().quote(suite)
    wrong_digest = bytearray(honest[8:])
    wrong_digest[1704 - 8] ^= 1
    yield Spoilt(f"quote.decode.{name}", lambda: quoted(honest[:-1]))
    yield Spoilt(f"quote.nonce.{name}", lambda: quoted(DeviceSimulator().quote(suite, nonce=bytes(32))))
    yield Spoilt(
        f"quote.signature.{name}",
        lambda: quoted(DeviceSimulator().quote(suite, signer=key("stranger", suite))),
    )
    yield Spoilt(f"quote.digest.{name}", lambda: quoted(_sealed(bytes(wrong_digest))))


def _sealed(fields: bytes) -> bytes:
    rest = bytes(4) + fields
    return (-sum(rest) & 0xFFFFFFFF).to_bytes(4, "little") + rest


def _anchors(suite: Suite) -> Iterator[Spoilt]:
    name = SUITE_NAMES[suite]

    def anchors(common_name: str, role: str, **changes: object) -> dict[str, Anchor]:
        root = key(role, suite)
        plan = Plan(
            issuer=Name(common_name).der(),
            subject=Name(common_name),
            public=root.public,
            signer=root,
            extensions={"constraints": certs.basic_constraints(8)},
        )
        spoilt = Certificate.parse(replace(plan, **changes).issue())  # type: ignore[arg-type]
        anchor = DeviceSimulator().anchor()
        return {MODEL: replace(anchor, certificates={**anchor.certificates, suite: spoilt})}

    issue = DeviceSimulator().issue
    yield Spoilt(f"anchor.signature.{name}", issue, anchors=lambda: anchors(MODEL, "stranger"))
    yield Spoilt(
        f"anchor.validity.{name}", issue, anchors=lambda: anchors(MODEL, "root", not_after="20240101000000Z")
    )
    yield Spoilt(
        f"anchor.constraints.{name}",
        issue,
        anchors=lambda: anchors(MODEL, "root", extensions={"constraints": certs.basic_constraints(3)}),
    )


def _halves() -> dict[str, Anchor]:
    """Return two anchors, each with the root of one suite."""
    real = DeviceSimulator().anchor()
    stranger = {
        suite: Certificate.parse(certs.self_signed_ca(Name("MODEL-b"), key("stranger", suite)))
        for suite in SUITES
    }
    ecc, mldsa = SUITES
    return {
        MODEL: replace(real, certificates={ecc: real.certificates[ecc], mldsa: stranger[mldsa]}),
        "b": Anchor("b", {ecc: stranger[ecc], mldsa: real.certificates[mldsa]}),
    }


def _with_report_changed(**changes: object) -> bytes:
    device = DeviceSimulator()
    report = replace(device.report(), **changes)  # type: ignore[arg-type]
    return of(device, partitions=(device.partition(report),))


def _message(**changes: object) -> bytes:
    device = DeviceSimulator()
    return replace(device.sign(device.evidence()), **changes).encode()  # type: ignore[arg-type]


def _expecting(name: str) -> ReferenceValues:
    honest = references()
    return replace(honest, digests={**honest.digests, name: bytes(len(honest.digests[name]))})


def _other_registers(index: int) -> Callable[[], bytes]:
    return DeviceSimulator(other_registers={index: sha384(b"x")}).issue


def _two_partitions() -> bytes:
    device = DeviceSimulator()
    return of(device, partitions=(device.partition(), device.partition()))


def _mixed_quotes() -> bytes:
    device, other = DeviceSimulator(), DeviceSimulator(other_registers={5: sha384(b"x")})
    ecc, mldsa = SUITES
    return of(device, quotes={ecc: device.quote(ecc), mldsa: other.quote(mldsa)})


def _two_devices() -> bytes:
    device, other = DeviceSimulator(), DeviceSimulator(ueid=bytes(17))
    ecc, mldsa = SUITES
    return of(device, chains={ecc: device.chain(ecc), mldsa: other.chain(mldsa)})


def _log(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    device = DeviceSimulator()
    entries = change([entry.encode() for entry in device.log_entries()])
    return of(device, pcr_log=with_headers(DataReply(b"".join(entries))))


def _unmasked_status() -> bytes:
    """Return evidence whose device status extends no register, and has octets where there should be none."""
    status = DeviceSimulator().log_entries()[0]
    octets = replace(status, pcr_mask=0, data=b"\1" * 18 + bytes(30)).encode()
    return _log(lambda log: [octets, *log[1:]])


def _guest() -> bytes:
    device = DeviceSimulator()
    device.stash.append(StashEntry(7, "guest", sha384(b"guest"), 0))
    return device.issue()


def _once() -> Iterator[Spoilt]:
    """Yield what can be wrong once."""
    honest = DeviceSimulator().issue
    yield Spoilt("nonce.challenge", honest, nonce=None)
    yield Spoilt("nonce.challenge", honest, nonce=bytes(32))
    yield Spoilt("envelope.decode", lambda: honest() + b"\0")
    yield Spoilt(
        "envelope.content_type",
        lambda: DeviceSimulator().sign(DeviceSimulator().evidence(), REPORT_TYPE).encode(),
    )
    yield Spoilt("envelope.payload", lambda: _message(payload=b"other"))
    yield Spoilt(
        "envelope.rt_alias",
        lambda: of(DeviceSimulator(), rt_alias_key_id=bytes(20)),
        frozenset({"report.rt_alias"}),
    )
    yield Spoilt("anchor.same", honest, ANY, anchors=_halves)
    yield Spoilt(
        "anchor.model", honest, anchors=lambda: {"real": replace(DeviceSimulator().anchor(), name="real")}
    )
    yield Spoilt("chain.device", _two_devices)
    yield Spoilt("quote.agree", _mixed_quotes, frozenset({"quote.unused"}))
    yield Spoilt("quote.unused", _other_registers(30))
    yield Spoilt("log.decode", lambda: of(DeviceSimulator(), pcr_log=b""))
    yield Spoilt("log.decode", _unmasked_status)
    yield Spoilt(
        "log.sequence", lambda: _log(lambda log: [*log, log[-1]]), frozenset({"log.pcr2", "log.pcr3"})
    )
    yield Spoilt("log.device_status", lambda: _log(lambda log: log[1:]), ANY)
    # The simulator's leaf shows what its quote shows, so only the logs are left behind.
    for index in (0, 1, 2, 3, 31):
        yield Spoilt(f"log.pcr{index}", _other_registers(index))
    yield Spoilt("info.decode", lambda: of(DeviceSimulator(), fw_info=b""))
    yield Spoilt(
        "info.consistent",
        lambda: of(
            DeviceSimulator(), fw_info=with_headers(DeviceSimulator(fmc_digest=bytes(48)).fw_info_reply())
        ),
    )
    for name in references().digests:
        yield Spoilt(f"image.{name}.reference", honest, expected=_expecting(name))
    yield Spoilt("image.known", _guest)
    yield Spoilt("policy.svn", DeviceSimulator(svn=4).issue)
    yield Spoilt("policy.lifecycle", DeviceSimulator(lifecycle=1).issue)
    yield Spoilt("policy.debug", DeviceSimulator(debug_locked=0).issue)
    yield Spoilt("policy.anti_rollback", DeviceSimulator(anti_rollback_disable=1).issue)
    yield Spoilt("policy.attestation", DeviceSimulator(attestation_disabled=1).issue)
    yield Spoilt("policy.partitions", lambda: of(DeviceSimulator(), partitions=()))
    yield Spoilt("policy.partitions", _two_partitions)
    yield Spoilt(
        "report.decode", lambda: _with_report(lambda octets: octets[:-1]), frozenset({"policy.partitions"})
    )
    yield Spoilt(
        "report.content_type",
        lambda: of(
            DeviceSimulator(), partitions=(DeviceSimulator().partition(content_type="application/x"),)
        ),
    )
    yield Spoilt(
        "report.payload",
        lambda: _with_report(lambda octets: replace(SignedMessage.decode(octets), payload=b"x").encode()),
        frozenset({"policy.partitions"}),
    )
    yield Spoilt("report.nonce", lambda: _with_report_changed(nonce=bytes(32)))
    yield Spoilt("report.rt_alias", lambda: _with_report_changed(rt_alias_key_id=bytes(20)))
    yield Spoilt(
        "report.image",
        lambda: _with_report_changed(image_digest=sha384(b"front")),
        frozenset(both("report.identity")),
    )


SPOILT = [*_once(), *_per_suite(), *_in_chains()]


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: spoilt.rule)
def test_spoilt_evidence_fails_by_its_rule(spoilt: Spoilt) -> None:
    verdict = spoilt.judge()
    assert not verdict.accepted
    assert spoilt.rule in failed(verdict)
    if spoilt.also != ANY:
        assert failed(verdict) == {spoilt.rule} | spoilt.also


def test_every_rule_is_broken_by_some_evidence() -> None:
    assert {spoilt.rule for spoilt in SPOILT} == set(RULES)


def test_a_refusal_has_a_reason_for_each_rule_and_lists_them_all() -> None:
    device = DeviceSimulator(lifecycle=1, debug_locked=0, svn=1, attestation_disabled=1)
    verdict = judge(device.issue(), nonce=None)
    assert failed(verdict) == {
        "nonce.challenge",
        "policy.lifecycle",
        "policy.debug",
        "policy.svn",
        "policy.attestation",
    }
    assert all(failure.reason for failure in verdict.failures)
    with pytest.raises(VerificationError) as refused:
        verdict.require()
    assert {failure.rule for failure in refused.value.failures} == failed(verdict)


# --- splicing -------------------------------------------------------------------------------------------------


def test_a_quote_of_another_boot_does_not_fit_the_envelope() -> None:
    now, then = DeviceSimulator(), DeviceSimulator(runtime_digest=sha384(b"an older runtime"))
    octets = of(now, quotes=then.evidence().quotes)
    assert failed(judge(octets)) == {"log.pcr2", "log.pcr3", *both("tcb.root")}


def test_a_quote_that_was_kept_from_another_challenge_does_not_fit() -> None:
    now, then = DeviceSimulator(), DeviceSimulator(nonce=bytes(32))
    assert failed(judge(of(now, quotes=then.evidence().quotes))) == both("quote.nonce")


def test_quote_and_log_of_another_boot_do_not_fit_the_certificates() -> None:
    now, then = DeviceSimulator(), DeviceSimulator(fmc_digest=sha384(b"an older FMC"))
    spliced = of(now, quotes=then.evidence().quotes, pcr_log=then.evidence().pcr_log)
    assert failed(judge(spliced)) == {"info.consistent", "image.fmc.reference", *both("tcb.fmc")}


def test_a_log_that_was_replaced_to_show_the_expected_images_does_not_fit_the_quote() -> None:
    bad, good = DeviceSimulator(fmc_digest=sha384(b"bad")), DeviceSimulator()
    octets = of(bad, pcr_log=good.evidence().pcr_log)
    assert failed(judge(octets)) == {"log.pcr0", "log.pcr1", "info.consistent", *both("tcb.fmc")}


def test_a_list_of_images_that_was_replaced_does_not_fit() -> None:
    bad = DeviceSimulator()
    bad.stash[1] = replace(bad.stash[1], digest=sha384(b"bad front"))
    octets = of(bad, stash_log=tuple(DeviceSimulator().stash))
    assert failed(judge(octets)) == {"log.pcr31", *both("tcb.stash")}


def test_a_report_of_another_challenge_does_not_fit() -> None:
    now, then = DeviceSimulator(), DeviceSimulator(nonce=bytes(32))
    assert failed(judge(of(now, partitions=(then.partition(),)))) == {"report.nonce"}


def test_a_report_of_another_server_does_not_fit() -> None:
    here, there = DeviceSimulator(), DeviceSimulator(key_set="other")
    assert failed(judge(of(here, partitions=(there.partition(),)))) == {
        "report.rt_alias",
        *both("chain.signature.partition", "chain.issuer.partition", "chain.authority_key.partition"),
    }


@pytest.mark.parametrize("suite", SUITES)
def test_a_leaf_of_another_key_does_not_fit(suite: Suite) -> None:
    here, there, name = DeviceSimulator(), DeviceSimulator(key_set="other"), SUITE_NAMES[suite]
    chains = here.evidence().chains
    chain = replace(chains[suite], dpe_leaf=there.certificate("dpe_leaf", suite))
    assert failed(judge(of(here, chains={**chains, suite: chain}))) == {
        f"envelope.key.{name}",
        f"envelope.signature.{name}",
        *(f"chain.{rule}.dpe_leaf.{name}" for rule in ("signature", "issuer", "authority_key")),
    }


def test_evidence_of_another_server_under_the_same_root_is_its_own() -> None:
    assert judge(DeviceSimulator(key_set="other").issue()).accepted


def test_one_chain_of_each_of_two_servers_is_no_server() -> None:
    here, there = DeviceSimulator(), DeviceSimulator(key_set="other", ueid=bytes(17))
    ecc, mldsa = SUITES
    verdict = judge(of(here, chains={ecc: here.chain(ecc), mldsa: there.chain(mldsa)}))
    assert {"chain.device", "envelope.signature.ml_dsa_87", "quote.signature.ml_dsa_87"} <= failed(verdict)


def test_swapped_suites_are_refused() -> None:
    device = DeviceSimulator()
    evidence = device.evidence()
    ecc, mldsa = SUITES
    chains = {ecc: evidence.chains[mldsa], mldsa: evidence.chains[ecc]}
    quotes = {ecc: evidence.quotes[mldsa], mldsa: evidence.quotes[ecc]}
    verdict = judge(of(device, chains=chains, quotes=quotes))
    assert both("chain.suite.dpe_leaf", "anchor.signature", "quote.decode", "envelope.signature") <= failed(
        verdict
    )


def test_a_payload_that_was_changed_after_signing_is_refused() -> None:
    device = DeviceSimulator()
    other = replace(device.evidence(), statements=()).encode()
    assert failed(judge(replace(device.sign(device.evidence()), payload=other).encode())) == both(
        "envelope.signature"
    )


def test_evidence_whose_nonce_was_made_to_fit_is_refused() -> None:
    old = DeviceSimulator(nonce=bytes(32))
    assert failed(judge(of(old, nonce=NONCE))) == {
        "report.nonce",
        *both("quote.nonce", "envelope.label"),
    }


def test_a_partition_report_is_no_evidence() -> None:
    device = DeviceSimulator()
    verdict = judge(device.partition().report)
    assert {"envelope.content_type", "envelope.payload"} == failed(verdict)


@pytest.mark.parametrize("octets", [b"", b"\0", b"x" * 100_000])
def test_octets_that_are_no_evidence_are_refused_in_one_line(octets: bytes) -> None:
    verdict = judge(octets)
    assert failed(verdict) == {"envelope.decode"}
    assert len(verdict.failures) == 1


def test_each_flipped_octet_of_the_evidence_is_refused() -> None:
    octets = DeviceSimulator().issue()
    for at in range(0, len(octets), 1997):
        spoilt = bytearray(octets)
        spoilt[at] ^= 1
        assert not judge(bytes(spoilt)).accepted, at


def _damaged(evidence: Evidence, damage: Callable[[bytes], bytes]) -> Iterator[Evidence]:
    """Yield the evidence once for each field that somebody has signed, with that one damaged."""
    for suite, chain in evidence.chains.items():
        for place in CHAIN_ORDER:
            spoilt = replace(chain, **{place: damage(getattr(chain, place))})
            yield replace(evidence, chains={**evidence.chains, suite: spoilt})
        quote = damage(evidence.quotes[suite])
        yield replace(evidence, quotes={**evidence.quotes, suite: quote})
    partition = evidence.partitions[0]
    yield replace(evidence, fw_info=damage(evidence.fw_info))
    yield replace(evidence, pcr_log=damage(evidence.pcr_log))
    yield replace(evidence, partitions=(replace(partition, report=damage(partition.report)),))


def test_damaged_parts_under_a_good_signature_are_refused_and_nothing_else_happens() -> None:
    random = Random("damage")
    device = DeviceSimulator()

    def damage(octets: bytes) -> bytes:
        at, size = random.randrange(len(octets)), random.randint(1, 3)
        piece = bytes([octets[at] ^ random.randint(1, 255)]) + random.randbytes(random.randint(0, 2))
        return octets[:at] + piece + octets[at + size :]

    for _ in range(8):
        for evidence in _damaged(device.evidence(), damage):
            verdict = judge(device.sign(evidence).encode())
            assert not verdict.accepted
            assert verdict.failures


def test_the_verdict_is_the_same_for_the_same_evidence() -> None:
    octets = DeviceSimulator().issue()
    assert judge(octets) == judge(octets)
