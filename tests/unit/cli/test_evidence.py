"""`endocarp evidence` and `endocarp verify`: a server that answers, a relying party that judges."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.simulators.box import Served
from tests.simulators.device import NONCE, DeviceSimulator

from endocarp.cli.main import endocarp
from endocarp.errors import DeviceError, Refused, UsageError
from endocarp.wire.cose import SignedMessage
from endocarp.wire.evidence import Evidence


def run(*words: str, error: type[Exception] | None = None) -> Result:
    """Run a command that ends well, or by this error."""
    done = CliRunner().invoke(endocarp, words, env={"COLUMNS": "160"})
    if error is not None:
        assert isinstance(done.exception, error), done.exception
    elif done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def nonce_of(octets: bytes) -> bytes:
    return Evidence.decode(SignedMessage.decode(octets).payload).nonce


def config_of(served: Served) -> list[str]:
    return ["--config", str(served.config.root)]


def outstanding(served: Served) -> list[str]:
    """Return the challenges that are kept."""
    folder = served.config.challenges
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def file(served: Served, tmp_path: Path) -> Path:
    """Return a file of evidence over a challenge of the relying party's."""
    path = tmp_path / "evidence.cbor"
    run("evidence", *served.options, "--out", str(path))
    return path


# --- evidence -------------------------------------------------------------------------------------------------------


def test_evidence_answers_a_challenge_that_is_outstanding_from_then_on(served: Served, file: Path) -> None:
    assert outstanding(served) == [nonce_of(file.read_bytes()).hex()]


def test_evidence_goes_to_standard_output_as_it_is(served: Served) -> None:
    done = run("evidence", *served.options, "--nonce", NONCE.hex())
    assert nonce_of(done.stdout_bytes) == NONCE
    assert outstanding(served) == []


def test_evidence_is_not_shown_on_a_terminal(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(UsageError, match="binary") as raised:
            endocarp(["evidence", *served.options], standalone_mode=False)
        monkeypatch.undo()
    os.close(ours)
    assert raised.value.advice() == "send it into a file: endocarp evidence > evidence.cbor"
    assert outstanding(served) == []


def test_a_file_that_cannot_be_written_is_named(served: Served, tmp_path: Path) -> None:
    done = run("evidence", *served.options, "--out", str(tmp_path / "no/file"), error=UsageError)
    assert str(done.exception) == f"cannot write {tmp_path / 'no/file'}: No such file or directory"
    assert isinstance(done.exception, UsageError)
    assert done.exception.advice() == "choose another file with --out"
    assert outstanding(served) == []


def test_a_challenge_that_was_given_is_not_used_up_by_a_file_that_cannot_be_written(
    served: Served, file: Path, tmp_path: Path
) -> None:
    given = outstanding(served)
    nowhere = str(tmp_path / "no/file")
    run("evidence", *served.options, "--nonce", given[0], "--out", nowhere, error=UsageError)
    assert outstanding(served) == given


def test_a_challenge_has_32_octets(served: Served) -> None:
    run("evidence", *served.options, "--nonce", "abcd", error=UsageError)


def test_what_the_server_refuses_comes_out_by_its_rule(served: Served) -> None:
    served.box.fault = Refused("process.rot", "is being reset", "try again in a moment")
    done = run("evidence", *served.options, error=Refused)
    assert isinstance(done.exception, Refused)
    assert (done.exception.rule, done.exception.advice()) == ("process.rot", "try again in a moment")
    assert outstanding(served) == []


def test_a_server_that_does_not_run_leaves_no_challenge(served: Served, place: Path) -> None:
    run("evidence", "--state", str(place / "none"), *config_of(served), error=DeviceError)
    assert outstanding(served) == []


# --- verify ---------------------------------------------------------------------------------------------------------


def test_evidence_is_verified_once_and_then_its_challenge_is_used_up(served: Served, file: Path) -> None:
    first = run("verify", *config_of(served), str(file))
    assert (first.exit_code, first.stdout.splitlines()[0]) == (0, "VERIFIED")
    second = run("verify", *config_of(served), str(file))
    assert (second.exit_code, second.stdout.splitlines()[0]) == (1, "REFUSED")
    assert "nonce.challenge" in second.stdout


def test_who_keeps_the_challenge_himself_names_it(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "evidence.cbor"
    path.write_bytes(DeviceSimulator().issue())
    for _ in range(2):
        assert run("verify", *config_of(served), "--nonce", NONCE.hex(), str(path)).exit_code == 0
    assert run("verify", *config_of(served), "--nonce", bytes(32).hex(), str(path)).exit_code == 1


def test_one_changed_octet_is_refused(served: Served, file: Path) -> None:
    octets = bytearray(file.read_bytes())
    octets[len(octets) // 2] ^= 1
    file.write_bytes(octets)
    assert run("verify", *config_of(served), str(file)).exit_code == 1


def test_programs_get_the_verdict_as_json(served: Served, file: Path) -> None:
    done = run("verify", *config_of(served), "--json", str(file))
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code, verdict["verdict"], verdict["failures"]) == (0, "VERIFIED", [])


def test_every_rule_is_shown_to_who_asks_for_all(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "evidence.cbor"
    path.write_bytes(DeviceSimulator().issue())
    words = ["verify", *config_of(served), "--nonce", NONCE.hex(), str(path)]
    short, whole = run(*words).stdout, run(*words, "--all").stdout
    assert "log.pcr0" not in short
    assert "log.pcr0" in whole


def test_a_file_that_cannot_be_read_is_named(served: Served, tmp_path: Path) -> None:
    done = run("verify", *config_of(served), str(tmp_path / "none"), error=UsageError)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == f"cannot read {tmp_path / 'none'}: No such file or directory"
    assert "endocarp evidence >" in done.exception.advice()


def test_a_file_without_end_is_refused(served: Served) -> None:
    assert run("verify", *config_of(served), "/dev/zero").exit_code == 1
