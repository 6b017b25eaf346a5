"""A verdict as people see it."""

import re

from rich.console import Console
from tests.simulators.device import DeviceSimulator
from tests.simulators.relying import judge

from endocarp.cli.verdict import tree
from endocarp.verifier.verdict import Claim, Finding, Outcome, Verdict
from endocarp.wire.evidence import Status

DIGEST = "0123456789abcdef" * 6


def shown(verdict: Verdict, *, show_all: bool = False) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        console.print(tree(verdict, show_all=show_all))
    return captured.get()


def verdict(*findings: Finding, said: tuple[Claim, ...] = ()) -> Verdict:
    return Verdict(findings, said, {"model": "MODEL-[x]", "nonce": "ab:tada:"})


def test_evidence_that_held_is_verified_and_says_what_it_rests_on() -> None:
    found = shown(judge(DeviceSimulator().issue()))
    first, *_, last = found.splitlines()
    assert first == "VERIFIED"
    assert re.fullmatch(r"VERIFIED: all \d\d\d rules held", last)
    assert "✗" not in found
    # Reference values are named even where all of them held; which quote they stand in is told on request.
    assert "image.fmc.reference" in found
    assert "log.pcr0" not in found
    assert "log.pcr0" in shown(judge(DeviceSimulator().issue()), show_all=True)


def test_evidence_that_did_not_hold_is_refused_with_the_rules_that_failed() -> None:
    found = shown(judge(DeviceSimulator(fmc_digest=bytes(48)).issue()))
    first, *_, last, advice = found.splitlines()
    assert (first, last) == ("REFUSED", "REFUSED: image.fmc.reference")
    assert advice == "advice: do not rely on this server until each failure is explained"
    assert "✗ image.fmc.reference" in found


def test_of_many_rules_that_failed_the_last_line_names_the_first() -> None:
    failed = [Finding(f"log.pcr{number}", Outcome.FAILED, "differs") for number in (0, 0, 1, 2, 3, 31)]
    assert "\nREFUSED: log.pcr0, log.pcr1, log.pcr2 and 2 more\n" in shown(verdict(*failed))


def test_a_finding_stands_with_subject_reason_and_reference() -> None:
    line = Finding("log.pcr0", Outcome.FAILED, "differs", subject="PCR 0", reference="the log")
    assert "✗ log.pcr0 PCR 0: differs  = the log" in shown(verdict(line))


def test_what_was_told_and_what_was_not_reached_is_shown_but_not_counted_as_held() -> None:
    found = shown(
        verdict(
            Finding("log.pcr0", Outcome.HELD, "fine", reference="the quote"),
            Finding("log.pcr1", Outcome.UNREACHED, "nobody looked"),
            Finding("log.pcr31", Outcome.TOLD, "the log is the word of the box"),
        )
    )
    assert "✗ " in next(line for line in found.splitlines() if "1 of 2 rules held" in line)
    assert "? log.pcr1: nobody looked" in found
    assert "· log.pcr31: the log is the word of the box" in found
    assert "log.pcr0" not in found


def test_a_digest_is_cut_to_what_an_eye_compares_and_text_is_shown_as_it_is() -> None:
    found = shown(verdict(Finding("log.pcr0", Outcome.FAILED, f"{DIGEST} is not [bold] :tada:")))
    assert "0123456789abcdef… is not [bold] :tada:" in found
    assert "model: MODEL-[x]" in found
    assert "nonce: ab:tada:" in found


def statements(*made: Claim) -> list[list[str]]:
    """Return the lines of the statements, word by word."""
    lines = [line.split() for line in shown(verdict(said=made)).splitlines()]
    return lines[lines.index("What protects this server, and how far".split()) + 1 : -2]


def test_statements_stand_from_what_is_enforced_to_what_is_absent() -> None:
    enforced, absent = statements(
        Claim("processes", "none", Status.ABSENT, "detail", "the server"),
        Claim("processes", "seccomp", Status.ENFORCED, "detail", "the server"),
    )
    assert enforced == "enforced processes: seccomp: detail (the server)".split()
    assert absent == "absent processes: detail (the server)".split()


def test_what_is_said_of_several_is_said_once() -> None:
    same = [Claim(name, "seccomp", Status.ENFORCED, "detail", "server") for name in ("rot", "front")]
    other = Claim("vault", "seccomp", Status.ENFORCED, "another detail", "server")
    assert statements(same[0], other, same[1]) == [
        "enforced rot, front: seccomp: detail (server)".split(),
        "enforced vault: seccomp: another detail (server)".split(),
    ]
