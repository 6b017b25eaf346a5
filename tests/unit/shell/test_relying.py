"""The relying party's folder."""

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.simulators.device import MODEL, NONCE, NOW, DeviceSimulator, references
from tests.simulators.kernel import files_up_to, frozen_disk, in_child
from tests.simulators.relying import anchor_pem, failed, references_json

from endocarp.errors import DecodeError, UsageError
from endocarp.shell.config import Config
from endocarp.shell.relying import CHALLENGE_LIFE, RelyingParty, read_evidence, read_nonce, write_evidence

ANCHOR = anchor_pem(DeviceSimulator().anchor())
EVIDENCE = DeviceSimulator().issue()
REFERENCES = references()


@pytest.fixture
def party(tmp_path: Path) -> RelyingParty:
    """Return a relying party whose folder is not there yet."""
    return RelyingParty(Config(tmp_path / "config"))


@pytest.fixture
def trusting(party: RelyingParty) -> RelyingParty:
    """Return a relying party that knows the simulated server."""
    party.enrol(MODEL, ANCHOR, references_json(REFERENCES))
    return party


# --- anchors and references -----------------------------------------------------------------------------------------


def test_before_anything_was_enrolled_nobody_is_trusted_and_the_refusal_says_how_to_begin(
    party: RelyingParty,
) -> None:
    assert party.names() == []
    with pytest.raises(UsageError, match="no trust anchor") as raised:
        party.judge(EVIDENCE, NONCE, NOW)
    assert "start a server once" in raised.value.advice()


def test_an_anchor_and_its_references_are_kept_under_its_name(trusting: RelyingParty) -> None:
    assert trusting.names() == [MODEL]
    assert trusting.anchor(MODEL) == DeviceSimulator().anchor()
    assert trusting.references(MODEL) == REFERENCES


def test_who_is_enrolled_again_takes_the_place_of_the_old_one(trusting: RelyingParty) -> None:
    newer = replace(REFERENCES, svn=7)
    trusting.enrol(MODEL, ANCHOR, references_json(newer))
    assert trusting.names() == [MODEL]
    assert trusting.references(MODEL).svn == 7


def test_only_the_owner_can_put_an_anchor_there(trusting: RelyingParty) -> None:
    trusting.challenge(NONCE, NOW)
    config = trusting.config
    for directory in (config.anchors, config.references, config.challenges):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert all(path.stat().st_mode & 0o022 == 0 for path in directory.iterdir())


def test_what_is_no_pair_of_anchor_and_references_is_nobody(trusting: RelyingParty) -> None:
    (trusting.config.anchors / "README").write_text("not an anchor")
    (trusting.config.anchors / "MODEL-2.pem.new").write_text("half written")
    (trusting.config.anchors / "MODEL-3.pem").write_text(ANCHOR)
    (trusting.config.references / "MODEL-4.json").write_text("{}")
    assert trusting.names() == [MODEL]


@pytest.mark.parametrize(
    "octets", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n"], ids=["empty", "no text", "cut"]
)
def test_a_damaged_file_is_told_by_its_path(trusting: RelyingParty, octets: bytes) -> None:
    anchor, expected = trusting.config.anchors / f"{MODEL}.pem", trusting.config.references / f"{MODEL}.json"
    for path, read in ((anchor, trusting.anchor), (expected, trusting.references)):
        path.write_bytes(octets)
        with pytest.raises(DecodeError) as raised:
            read(MODEL)
        assert raised.value.where == str(path)


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_evidence_of_a_known_server_over_an_outstanding_challenge_is_accepted_once(
    trusting: RelyingParty,
) -> None:
    trusting.challenge(NONCE, NOW)
    assert trusting.judge(EVIDENCE, None, NOW).accepted
    again = trusting.judge(EVIDENCE, None, NOW)
    assert not again.accepted
    assert failed(again) == {"nonce.challenge"}


def test_a_challenge_that_somebody_else_keeps_is_taken_at_his_word(trusting: RelyingParty) -> None:
    assert trusting.judge(EVIDENCE, NONCE, NOW).accepted
    assert trusting.judge(EVIDENCE, NONCE, NOW).accepted
    assert not trusting.judge(EVIDENCE, bytes(32), NOW).accepted


def test_one_anchor_that_fits_is_enough_among_others(trusting: RelyingParty) -> None:
    for name in ("MODEL-a", "MODEL-z"):
        trusting.enrol(name, ANCHOR, references_json(replace(REFERENCES, svn=99)))
    assert trusting.judge(EVIDENCE, NONCE, NOW).accepted


def test_where_no_anchor_fits_the_verdict_is_that_of_the_nearest(party: RelyingParty) -> None:
    wrong = {name: bytes(len(digest)) for name, digest in REFERENCES.digests.items()}
    nearly = {**REFERENCES.digests, "rom": bytes(32)}
    party.enrol("MODEL-a", ANCHOR, references_json(replace(REFERENCES, digests=wrong)))
    party.enrol("MODEL-b", ANCHOR, references_json(replace(REFERENCES, digests=nearly)))
    verdict = party.judge(EVIDENCE, NONCE, NOW)
    assert not verdict.accepted
    assert failed(verdict) == {"anchor.model", "image.rom.reference"}
    assert verdict.context["anchor"] == "MODEL-b"


def test_what_is_no_evidence_uses_up_no_challenge(trusting: RelyingParty) -> None:
    trusting.challenge(NONCE, NOW)
    assert not trusting.judge(b"no evidence", None, NOW).accepted
    assert trusting.take(NONCE, NOW)


def test_a_damaged_anchor_uses_up_no_challenge(trusting: RelyingParty) -> None:
    trusting.challenge(NONCE, NOW)
    (trusting.config.anchors / f"{MODEL}.pem").write_text("damaged")
    with pytest.raises(DecodeError):
        trusting.judge(EVIDENCE, None, NOW)
    assert trusting.take(NONCE, NOW)


# --- challenges -----------------------------------------------------------------------------------------------------


def test_a_challenge_that_was_never_handed_out_is_not_outstanding(party: RelyingParty) -> None:
    assert not party.take(NONCE, NOW)


def test_a_challenge_is_good_once(party: RelyingParty) -> None:
    party.challenge(NONCE, NOW)
    assert party.take(NONCE, NOW)
    assert not party.take(NONCE, NOW)


def test_challenges_are_told_apart_and_used_up_one_by_one(party: RelyingParty) -> None:
    other = bytes(32)
    party.challenge(NONCE, NOW)
    party.challenge(other, NOW)
    assert not party.take(b"\xff" * 32, NOW)
    assert party.take(other, NOW)
    assert party.take(NONCE, NOW)


def test_a_challenge_outlives_the_process_that_made_it(party: RelyingParty) -> None:
    party.challenge(NONCE, NOW)
    assert RelyingParty(party.config).take(NONCE, NOW)


def test_of_many_who_use_a_challenge_at_once_one_succeeds(party: RelyingParty) -> None:
    for _ in range(20):
        party.challenge(NONCE, NOW)
        taken: list[bool] = []
        threads = [threading.Thread(target=lambda: taken.append(party.take(NONCE, NOW))) for _ in range(4)]  # noqa: B023
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]


def test_a_challenge_that_cannot_be_used_up_is_not_taken(tmp_path: Path) -> None:
    with frozen_disk(tmp_path / "disk", NONCE.hex()) as disk:
        party = RelyingParty(Config(tmp_path))
        party.config.challenges.symlink_to(disk)
        with pytest.raises(UsageError, match="Read-only file system"):
            party.take(NONCE, NOW)


def test_a_challenge_is_good_for_a_day_and_then_gone(party: RelyingParty) -> None:
    for age, good in ((0, True), (CHALLENGE_LIFE, True), (CHALLENGE_LIFE + 1, False)):
        party.challenge(NONCE, NOW)
        assert party.take(NONCE, NOW + age) is good
        assert not party.take(NONCE, NOW)


def test_challenges_that_nobody_answered_in_time_are_forgotten_at_the_next(party: RelyingParty) -> None:
    old, young, other = bytes(32), b"\1" * 32, party.config.challenges / "README"
    party.challenge(old, NOW - CHALLENGE_LIFE - 1)
    party.challenge(young, NOW - CHALLENGE_LIFE)
    other.mkdir()
    party.challenge(NONCE, NOW)
    left = {path.name for path in party.config.challenges.iterdir()}
    assert left == {young.hex(), NONCE.hex(), other.name}


def test_a_challenge_without_a_time_is_too_old(party: RelyingParty) -> None:
    party.challenge(NONCE, NOW)
    (party.config.challenges / NONCE.hex()).write_text("")
    assert not party.take(NONCE, NOW)


UNPRIVILEGED = """
import json, os, sys
from pathlib import Path
from endocarp.errors import UsageError
from endocarp.shell.config import Config
from endocarp.shell.relying import RelyingParty
party = RelyingParty(Config(Path(sys.argv[1])))
if os.getuid() == 0:
    os.setuid(65534)
try:
    print(json.dumps(["taken", party.take(bytes(32), 0.0)]))
except UsageError as error:
    print(json.dumps([str(error), error.advice()]))
"""


def test_a_challenge_of_somebody_else_stays_where_it_is(party: RelyingParty) -> None:
    party.challenge(bytes(32), NOW)
    party.config.challenges.chmod(0o500)
    reason, advice = in_child(UNPRIVILEGED, party.config.root)
    assert "Permission denied" in reason
    assert "--config" in advice
    party.config.challenges.chmod(0o700)
    assert party.take(bytes(32), NOW)


# --- files ----------------------------------------------------------------------------------------------------------


def test_evidence_that_was_written_is_read_and_takes_the_place_of_older(tmp_path: Path) -> None:
    path, link = tmp_path / "evidence", tmp_path / "link"
    link.symlink_to(path)
    for octets in (EVIDENCE, b"newer"):
        write_evidence(link, octets)
        assert read_evidence(path) == octets
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [path, link]


def test_evidence_that_finds_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "evidence"
    write_evidence(path, b"older")
    with files_up_to(100), pytest.raises(UsageError, match=f"cannot write {path}") as raised:
        write_evidence(path, EVIDENCE)
    assert raised.value.advice() == "choose another file with --out"
    assert path.read_bytes() == b"older"


def test_a_pipe_gets_evidence_and_stays_a_pipe(tmp_path: Path) -> None:
    path, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_evidence(path, b"evidence")
    reader.join()
    assert (found, path.is_fifo()) == ([b"evidence"], True)


def test_where_evidence_cannot_go_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write {tmp_path}: Is a directory"):
        write_evidence(tmp_path, b"evidence")
    with pytest.raises(UsageError, match="cannot read") as raised:
        read_evidence(tmp_path)
    assert "endocarp evidence" in raised.value.advice()


def test_of_a_file_without_end_a_part_is_read() -> None:
    assert not any(read_evidence(Path("/dev/zero")))


# --- nonces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [NONCE.hex(), NONCE.hex().upper(), NONCE.hex(" "), f" {NONCE.hex()}\n"])
def test_a_nonce_is_read_from_hexadecimal(text: str) -> None:
    assert read_nonce(text) == NONCE


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0" * 63, "zz" * 32, "0x" + "00" * 32, "ä" * 64])
def test_what_is_no_nonce_is_refused_with_a_way_to_make_one(text: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits") as raised:
        read_nonce(text)
    assert "openssl rand -hex 32" in raised.value.advice()
