"""Evidence of a running server, and what the relying party's command makes of it."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.process.server import ENDOCARP, PATIENCE, Home, Server, eventually, short_directory

from endocarp.errors import EndocarpError
from endocarp.shell.relying import RelyingParty
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Evidence

OFFSETS = 32


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "evidence.cbor")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Home]:
    """Another relying party, who knows another server and no more."""
    with short_directory() as root:
        home = Home(root)
        home.run("rot", "manufacture")
        home.run("rot", "build")
        yield home


@pytest.fixture(scope="module")
def mortal(prepared: Home) -> Iterator[Server]:
    """A server whose processes may be killed."""
    with short_directory() as root, Server.start(prepared.copy(root)) as server:
        yield server


def failed_rules(output: str) -> set[str]:
    return {one["rule"] for one in json.loads(output)["failures"]}


def test_fresh_evidence_is_verified_once_and_refused_the_second_time(running: Server, file: str) -> None:
    running.home.run("evidence", "--out", file)
    told = running.home.run("verify", file).stdout
    assert told.startswith("VERIFIED")
    assert "modelled" in told
    again = running.home.run("verify", "--json", file, exits=1).stdout
    assert failed_rules(again) == {"nonce.challenge"}
    assert running.home.run("verify", file, exits=1).stdout.startswith("REFUSED")


def test_evidence_goes_to_standard_output_for_a_pipe(running: Server, file: str) -> None:
    words = f"{ENDOCARP} evidence > {file} && {ENDOCARP} verify {file}"
    assert running.home.run_program("sh", "-c", words).stdout.startswith("VERIFIED")


def test_a_challenge_that_somebody_else_keeps_is_good_for_as_often_as_he_likes(
    running: Server, file: str
) -> None:
    nonce = os.urandom(32).hex()
    running.home.run("evidence", "--nonce", nonce, "--out", file)
    for _ in range(2):
        assert running.home.run("verify", "--nonce", nonce, file).stdout.startswith("VERIFIED")
    other = running.home.run("verify", "--json", "--nonce", os.urandom(32).hex(), file, exits=1).stdout
    assert failed_rules(other) == {"nonce.challenge"}
    assert failed_rules(running.home.run("verify", "--json", file, exits=1).stdout) == {"nonce.challenge"}


def test_evidence_of_a_server_whose_root_is_unknown_is_refused(
    running: Server, elsewhere: Home, file: str
) -> None:
    nonce = os.urandom(32).hex()
    running.home.run("evidence", "--nonce", nonce, "--out", file)
    verdict = elsewhere.run("verify", "--json", "--nonce", nonce, file, exits=1).stdout
    assert any(rule.startswith("anchor.") for rule in failed_rules(verdict))


def test_evidence_of_a_server_that_runs_other_images_is_refused(running: Server, file: str) -> None:
    nonce = os.urandom(32).hex()
    running.home.run("evidence", "--nonce", nonce, "--out", file)
    [references] = running.home.config.references.iterdir()
    expected = json.loads(references.read_text())
    kept = references.read_text()
    try:
        expected["images"]["vault"] = os.urandom(48).hex()
        references.write_text(json.dumps(expected))
        verdict = running.home.run("verify", "--json", "--nonce", nonce, file, exits=1).stdout
    finally:
        references.write_text(kept)
    assert "image.vault.reference" in failed_rules(verdict)


def test_evidence_with_one_changed_octet_is_refused_wherever_it_is(running: Server, file: str) -> None:
    nonce = os.urandom(32)
    evidence = running.evidence(nonce)
    party, now = RelyingParty(running.home.config), time.time()
    assert party.judge(evidence, nonce, now).accepted
    for at in {0, 1, len(evidence) - 1, *range(7, len(evidence), len(evidence) // OFFSETS)}:
        spoilt = bytearray(evidence)
        spoilt[at] ^= 1
        verdict = party.judge(bytes(spoilt), nonce, now)
        assert not verdict.accepted, at
        assert verdict.failures, at
    Path(file).write_bytes(evidence[:-1])
    told = running.home.run("verify", "--nonce", nonce.hex(), file, exits=1).stdout
    assert told.startswith("REFUSED")


@pytest.mark.parametrize("octets", [b"", b"\0", b"{}", bytes(100_000), b"\xd8\x62" * 1000])
def test_what_is_no_evidence_is_refused(running: Server, file: str, octets: bytes) -> None:
    verdict = RelyingParty(running.home.config).judge(octets, bytes(32), time.time())
    assert not verdict.accepted
    assert {one.rule for one in verdict.failures} >= {"envelope.decode"}


def of_both(*rules: str) -> set[str]:
    """Return these rules for both suites."""
    return {f"{rule}.{suite}" for rule in rules for suite in ("ecc384", "ml_dsa_87")}


BROKEN = {
    "nonce": of_both("envelope.signature", "envelope.label", "quote.nonce")
    | {"nonce.challenge", "report.nonce"},
    "chains": of_both("envelope.signature", "envelope.label", "envelope.key"),
    "quotes": of_both("envelope.signature", "quote.nonce"),
    "partitions": of_both("envelope.signature") | {"report.nonce"},
}
"""The rules that a part of other evidence breaks, by the part: the envelope is never the only one that holds it."""


def with_parts_of(message: SignedMessage, other: SignedMessage) -> dict[str, bytes]:
    """Return evidence with one part of other evidence in its place, for each part in which they differ, by its name."""
    own, others = Evidence.decode(message.payload), Evidence.decode(other.payload)
    found = {}
    for part in fields(Evidence):
        value: Any = getattr(others, part.name)
        if value != getattr(own, part.name):
            payload = replace(own, **{part.name: value}).encode()
            found[part.name] = replace(message, payload=payload).encode()
    return found


def test_no_part_of_one_answer_stands_in_another(running: Server) -> None:
    party, now, nonce = RelyingParty(running.home.config), time.time(), os.urandom(32)

    def broken(octets: bytes) -> set[str]:
        return {one.rule for one in party.judge(octets, nonce, now).failures}

    message, other = (SignedMessage.decode(running.evidence(one)) for one in (nonce, os.urandom(32)))
    assert broken(message.encode()) == set()
    assert {part: broken(octets) for part, octets in with_parts_of(message, other).items()} == BROKEN
    resigned = replace(message, signatures=other.signatures)
    assert broken(resigned.encode()) == of_both("envelope.signature", "envelope.key")


def test_evidence_is_verified_after_a_vault_and_the_whole_server_were_started_again(mortal: Server) -> None:
    party, now = RelyingParty(mortal.home.config), time.time()
    for name in ("vault-0", "rot"):
        pid = mortal.kill(name)
        nonce = os.urandom(32)

        def is_verified(pid: int = pid, name: str = name, nonce: bytes = nonce) -> bool:
            return mortal.pids().get(name) != pid and party.judge(mortal.evidence(nonce), nonce, now).accepted

        eventually(is_verified)


@pytest.mark.parametrize("name", ["vault-0", "rot"])
def test_evidence_asked_for_while_processes_die_is_good_or_refused_with_a_reason(
    mortal: Server, name: str
) -> None:
    party, now = RelyingParty(mortal.home.config), time.time()
    mortal.kill(name)
    asked = mortal.home.attempt(ENDOCARP, "evidence", "--out", "/dev/null")
    assert asked.returncode in (0, 1, 3)
    assert ("advice: " in asked.stderr) == (asked.returncode != 0)
    assert "Traceback" not in asked.stderr
    eventually(lambda: name in mortal.pids())
    mortal.kill(name)
    good, advice, deadline = 0, [], time.monotonic() + PATIENCE
    while good < 3 and time.monotonic() < deadline:
        nonce = os.urandom(32)
        try:
            evidence = mortal.evidence(nonce)
        except EndocarpError as error:
            advice.append(error.advice())
            time.sleep(0.005)
        else:
            assert party.judge(evidence, nonce, now).accepted
            good += 1
    assert good == 3
    assert all(advice)


def test_a_relying_party_without_any_anchor_says_so(running: Server, file: str) -> None:
    running.home.run("evidence", "--out", file)
    told = running.home.run("verify", "--config", f"{file}.none", file, exits=2).stderr
    assert "no trust anchor" in told


@pytest.mark.parametrize("nonce", ["00", "zz", "0" * 63, "0" * 66])
def test_a_nonce_of_another_size_is_a_mistake_of_the_caller(running: Server, file: str, nonce: str) -> None:
    assert "32 octets" in running.home.run("evidence", "--nonce", nonce, "--out", file, exits=2).stderr
    assert not Path(file).exists()
