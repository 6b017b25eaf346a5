"""The verdict: what was found for every rule, and so whether to rely on the server.

Findings are collected, never cut short: a rule that fails does not keep the next from being looked at. The verdict
accepts only where every rule of `rules.RULES` was reached and held, and a rule that compares holds only with the
reference named that it was compared to. So nothing passes by not having been looked at.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from endocarp.errors import Failure, UsageError, VerificationError
from endocarp.verifier.rules import PER_PARTITION, RULES, SECTIONS, section_of
from endocarp.wire.evidence import Status
from endocarp.wire.text import printable


class Outcome(StrEnum):
    """How a rule came out."""

    HELD = "held"
    FAILED = "failed"
    TOLD = "told"
    """Nothing to hold or to fail: something that the reader should know."""
    UNREACHED = "unreached"
    """Could not be looked at, because of something that failed before: the verdict does not accept."""


@dataclass(frozen=True)
class Finding:
    """What was found for one rule: on what (empty where there is only one), why, and against which reference."""

    rule: str
    outcome: Outcome
    reason: str
    subject: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Claim:
    """One statement on what protects this server (RFC 9334: a claim), and whose it is: the server's own, or the verifier's."""

    subject: str
    mechanism: str
    status: Status
    detail: str
    by: str


@dataclass(frozen=True)
class Section:
    """The findings of one section of the verdict."""

    name: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def held(self) -> bool:
        """Whether nothing in this section failed or stayed unreached."""
        return all(one.outcome in (Outcome.HELD, Outcome.TOLD) for one in self.findings)


@dataclass(frozen=True)
class Verdict:
    """What the evidence is worth: every finding, and every statement on what is enforced and what is not.

    `context` names what the verdict was reached with: `references` and `anchors given`; where the evidence could be
    read, its `nonce` and the `anchor` of its chains.
    """

    findings: tuple[Finding, ...]
    statements: tuple[Claim, ...]
    context: Mapping[str, str]

    @property
    def accepted(self) -> bool:
        """Whether every rule was reached and held."""
        return all(one.outcome in (Outcome.HELD, Outcome.TOLD) for one in self.findings)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every rule that failed, the first one first; where none did, those that were not reached."""
        for outcome in (Outcome.FAILED, Outcome.UNREACHED):
            found = tuple(one for one in self.findings if one.outcome is outcome)
            if found:
                return tuple(Failure(one.rule, _with_subject(one)) for one in found)
        return ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """The tree: the sections in their order, each with its findings."""
        return tuple(
            Section(name, title, tuple(one for one in self.findings if section_of(one.rule) == name))
            for name, title in SECTIONS.items()
        )

    def require(self) -> None:
        """Raise VerificationError with every failure unless the evidence is accepted."""
        if not self.accepted:
            raise VerificationError(self.failures)

    def to_json(self) -> str:
        """Return the verdict as JSON text, for programs: keys and rule identifiers are stable."""
        return json.dumps(self._plain(), indent=2, ensure_ascii=False)

    def _plain(self) -> dict[str, Any]:
        return {
            "verdict": "VERIFIED" if self.accepted else "REFUSED",
            "context": dict(self.context),
            "failures": [{"rule": one.rule, "reason": one.reason} for one in self.failures],
            "sections": [
                {
                    "section": section.name,
                    "title": section.title,
                    "held": section.held,
                    "findings": [_finding_to_plain(one) for one in section.findings],
                }
                for section in self.sections
            ],
            "statements": [_claim_to_plain(one) for one in self.statements],
        }


def _with_subject(finding: Finding) -> str:
    return f"{finding.subject}: {finding.reason}" if finding.subject else finding.reason


def _finding_to_plain(finding: Finding) -> dict[str, str]:
    plain = {"rule": finding.rule, "outcome": str(finding.outcome), "reason": finding.reason}
    extras = {"subject": finding.subject, "reference": finding.reference}
    return plain | {name: value for name, value in extras.items() if value}


def _claim_to_plain(claim: Claim) -> dict[str, str]:
    return {
        "subject": claim.subject,
        "mechanism": claim.mechanism,
        "status": claim.status.name.lower(),
        "detail": claim.detail,
        "by": claim.by,
    }


class Ledger:
    """Collects findings and statements while evidence is appraised; `verdict` closes it."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._statements: list[Claim] = []
        self._partitions: list[str] = []
        self.context: dict[str, str] = {}

    def check(
        self, rule: str, *, good: bool, held: str, failed: str, subject: str = "", reference: str = ""
    ) -> bool:
        """Note whether a rule held, with the reason for either outcome; return whether it did.

        `reference` is as in `note`.
        """
        outcome, reason = (Outcome.HELD, held) if good else (Outcome.FAILED, failed)
        self.note(Finding(rule, outcome, reason, subject, reference))
        return good

    def note(self, finding: Finding) -> None:
        """Note a finding. A rule that compares holds only with the name of the reference it was compared to.

        Reasons quote what a server said: what would steer a terminal in them is spelt out. Raises UsageError for a
        rule that is not in `rules.RULES`, and where a reference is missing.
        """
        if finding.rule not in RULES:
            raise UsageError(f"no rule {finding.rule}", "rules.RULES names them all")
        compared = RULES[finding.rule].compared
        if finding.outcome is Outcome.HELD and compared and not finding.reference:
            raise UsageError(f"{finding.rule} holds without a reference", "name what it was compared to")
        self._findings.append(replace(finding, reason=printable(finding.reason)))

    def expect(self, partition: str) -> None:
        """Demand that each of `rules.PER_PARTITION` is reached with this subject."""
        self._partitions.append(partition)

    def fail(self, rule: str, reason: str, *, subject: str = "") -> None:
        """Note that a rule failed."""
        self.check(rule, good=False, held="", failed=reason, subject=subject)

    def tell(self, rule: str, reason: str, *, subject: str = "") -> None:
        """Note something beside a rule that neither holds nor fails."""
        self.note(Finding(rule, Outcome.TOLD, reason, subject))

    def claim(self, statements: Iterable[Claim]) -> None:
        """Note statements on what is enforced and what is not."""
        self._statements += statements

    def verdict(self) -> Verdict:
        """Return the verdict; rules that nobody looked at stand in it as unreached."""
        return Verdict((*self._findings, *self._unreached()), tuple(self._statements), dict(self.context))

    def _unreached(self) -> Iterator[Finding]:
        found = [one for one in self._findings if one.outcome is not Outcome.TOLD]
        rules, pairs = {one.rule for one in found}, {(one.rule, one.subject) for one in found}
        for rule, known in RULES.items():
            reason = f"not looked at whether {known.sentence}"
            if rule not in rules:
                yield Finding(rule, Outcome.UNREACHED, reason)
            elif rule in PER_PARTITION:
                for subject in self._partitions:
                    if (rule, subject) not in pairs:
                        yield Finding(rule, Outcome.UNREACHED, reason, subject)
