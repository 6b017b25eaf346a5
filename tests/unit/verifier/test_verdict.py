"""The verdict and the ledger that it is made from."""

import json

import pytest

from endocarp.errors import UsageError, VerificationError
from endocarp.verifier.rules import RULES, SECTIONS
from endocarp.verifier.verdict import Claim, Finding, Ledger, Outcome
from endocarp.wire.evidence import Status


def full_ledger(*, but: tuple[str, ...] = ()) -> Ledger:
    """Return a ledger in which every rule holds, except some that nobody looked at."""
    ledger = Ledger()
    for rule in RULES:
        if rule not in but:
            ledger.check(rule, good=True, held="fine", failed="", reference="the reference")
    return ledger


def test_a_verdict_accepts_where_every_rule_was_reached_and_held() -> None:
    verdict = full_ledger().verdict()
    assert verdict.accepted
    assert verdict.failures == ()
    verdict.require()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_nobody_looked_at_keeps_a_verdict_from_accepting(rule: str) -> None:
    verdict = full_ledger(but=(rule,)).verdict()
    assert not verdict.accepted
    assert [one.rule for one in verdict.failures] == [rule]


def test_telling_about_a_rule_does_not_make_it_hold() -> None:
    ledger = full_ledger(but=("quote.unused",))
    ledger.tell("quote.unused", "interesting")
    verdict = ledger.verdict()
    assert not verdict.accepted
    assert [(one.outcome, one.reason) for one in verdict.findings if one.rule == "quote.unused"] == [
        (Outcome.TOLD, "interesting"),
        (Outcome.UNREACHED, "not looked at whether registers that nobody may extend are zero"),
    ]


@pytest.mark.parametrize("steering", ["\x1b[2J\x1b[HVERIFIED", "\x9b2J", "\r", "\u202e", "\n"])
def test_what_a_server_says_never_steers_the_terminal_of_the_reader(steering: str) -> None:
    ledger = Ledger()
    ledger.fail("chain.issuer.rt_alias.ecc384", f"it names another issuer than {steering}")
    reason = ledger.verdict().findings[0].reason
    assert reason.isprintable()
    assert reason.startswith("it names another issuer than \\")


def test_an_empty_verdict_accepts_nothing() -> None:
    verdict = Ledger().verdict()
    assert not verdict.accepted
    assert len(verdict.failures) == len(RULES)


def test_every_failure_is_collected_in_order_and_unreached_rules_do_not_hide_them() -> None:
    ledger = full_ledger(but=("log.pcr0", "quote.agree", "log.pcr1"))
    ledger.fail("log.pcr0", "wrong")
    ledger.fail("quote.agree", "differs", subject="somewhere")
    verdict = ledger.verdict()
    assert [(one.rule, one.reason) for one in verdict.failures] == [
        ("log.pcr0", "wrong"),
        ("quote.agree", "somewhere: differs"),
    ]
    with pytest.raises(VerificationError) as refused:
        verdict.require()
    assert refused.value.failures == verdict.failures
    assert refused.value.code == "log.pcr0"


def test_a_rule_that_held_for_one_and_failed_for_another_has_failed() -> None:
    ledger = full_ledger()
    ledger.fail("report.nonce", "old", subject="partition 1")
    assert not ledger.verdict().accepted


def test_a_comparison_never_holds_without_its_reference() -> None:
    with pytest.raises(UsageError, match="without a reference"):
        Ledger().check("image.fmc.reference", good=True, held="fine", failed="")
    assert not Ledger().check("image.fmc.reference", good=False, held="", failed="another")


def test_a_rule_must_be_a_known_one() -> None:
    with pytest.raises(UsageError, match="no rule made"):
        Ledger().note(Finding("made.up", Outcome.FAILED, "no"))


def test_sections_hold_every_finding_once() -> None:
    verdict = full_ledger(but=("log.pcr0",)).verdict()
    assert [section.name for section in verdict.sections] == list(SECTIONS)
    assert sum(len(section.findings) for section in verdict.sections) == len(RULES)
    assert [section.name for section in verdict.sections if not section.held] == ["log"]


def test_a_verdict_becomes_json() -> None:
    ledger = full_ledger(but=("log.pcr0",))
    ledger.fail("log.pcr0", "wrong", subject="here")
    ledger.context["anchor"] = "MODEL-test"
    ledger.claim([Claim("keys", "memfd", Status.MODELLED, "somehow", "server")])
    plain = json.loads(ledger.verdict().to_json())
    assert plain["verdict"] == "REFUSED"
    assert plain["context"] == {"anchor": "MODEL-test"}
    assert plain["failures"] == [{"rule": "log.pcr0", "reason": "here: wrong"}]
    assert plain["statements"] == [
        {"subject": "keys", "mechanism": "memfd", "status": "modelled", "detail": "somehow", "by": "server"}
    ]
    log = next(section for section in plain["sections"] if section["section"] == "log")
    assert not log["held"]
    assert {"rule": "log.pcr0", "outcome": "failed", "reason": "wrong", "subject": "here"} in log["findings"]
    image = next(section for section in plain["sections"] if section["section"] == "image")
    assert image["findings"][0]["reference"] == "the reference"


def test_json_of_an_accepted_verdict_says_so() -> None:
    assert json.loads(full_ledger().verdict().to_json())["verdict"] == "VERIFIED"
