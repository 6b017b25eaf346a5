"""What is enforced, reported, modelled or absent."""

from collections import Counter
from dataclasses import replace

from tests.simulators.device import NOW, DeviceSimulator

from endocarp.verifier.chain import verify_chains
from endocarp.verifier.statements import SERVER, VERIFIER, statements
from endocarp.verifier.verdict import Claim, Ledger
from endocarp.wire.evidence import Evidence, Statement, Status


def say(device: DeviceSimulator, evidence: Evidence) -> list[Claim]:
    identities = verify_chains(Ledger(), evidence.chains, {device.model: device.anchor()}, NOW)
    return list(statements(evidence, identities, [device.report()]))


def test_a_model_root_is_called_one() -> None:
    device = DeviceSimulator()
    first = say(device, device.evidence())[0]
    assert (first.subject, first.mechanism, first.status, first.by) == (
        "root of trust",
        "MODEL-test",
        Status.MODELLED,
        VERIFIER,
    )


def test_a_root_that_is_no_model_is_not() -> None:
    device = DeviceSimulator(model="Real Root")
    said = say(device, device.evidence())
    assert [one for one in said if one.status is Status.MODELLED and one.by == VERIFIER] == []


def test_what_the_server_says_is_passed_on_as_its_word() -> None:
    device = DeviceSimulator()
    own = Statement("doors", "locks", Status.ENFORCED, "steel")
    said = say(device, replace(device.evidence(), statements=(own,)))
    assert [one for one in said if one.by == SERVER] == [
        Claim("doors", "locks", Status.ENFORCED, "steel", SERVER)
    ]


def test_what_a_server_leaves_out_is_said_by_the_verifier() -> None:
    device = DeviceSimulator()
    bare = replace(device.evidence(), statements=(), inventory=(), partitions=())
    said = say(device, bare)
    assert Counter(one.by for one in said)[VERIFIER] >= 7
    assert {one.status for one in said if one.by == VERIFIER} == {
        Status.MODELLED,
        Status.REPORTED,
        Status.ABSENT,
    }
    assert "inventory of 0" in {one.mechanism for one in said}


def test_a_partition_speaks_of_its_memory_and_its_sandbox() -> None:
    device = DeviceSimulator()
    own = [one for one in say(device, device.evidence()) if one.by == "partition 0"]
    assert [(one.mechanism, one.detail, one.status) for one in own] == [
        ("memfd_secret", "found at its start", Status.REPORTED),
        ("landlock", "ABI 7", Status.REPORTED),
        ("seccomp", "filter", Status.REPORTED),
    ]
