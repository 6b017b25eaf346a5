"""The six ways to fail: what each carries, and what it says to people."""

import pytest

from endocarp.errors import (
    DecodeError,
    DeviceError,
    EndocarpError,
    Failure,
    PeerError,
    Refused,
    UsageError,
    VerificationError,
)


def test_there_are_exactly_six_ways_to_fail() -> None:
    assert set(EndocarpError.__subclasses__()) == {
        DecodeError,
        PeerError,
        UsageError,
        Refused,
        DeviceError,
        VerificationError,
    }


def test_a_decode_error_names_the_field_and_what_was_found() -> None:
    fault = DecodeError("Header.length", "cut short")
    assert (fault.where, fault.reason, fault.code) == ("Header.length", "cut short", "decode")
    assert str(fault) == "Header.length: cut short"
    assert "another version" in fault.advice()


def test_a_peer_error_carries_the_number_to_answer_with() -> None:
    fault = PeerError(0x4D424D44, "no such command")
    assert (fault.number, fault.reason, fault.code) == (0x4D424D44, "no such command", "0x4d424d44")
    assert str(fault) == "no such command (0x4d424d44)"
    assert fault.advice() == ""


def test_a_usage_error_says_how_to_call_instead() -> None:
    fault = UsageError("no such suite", "choose one of Suite")
    assert (str(fault), fault.reason, fault.code) == ("no such suite", "no such suite", "usage")
    assert fault.advice() == "choose one of Suite"
    assert UsageError("closed").advice() == ""


def test_a_refusal_carries_the_rule() -> None:
    fault = Refused("store-tag", "record 7 does not authenticate", "restore the file from a copy")
    assert (fault.rule, fault.code) == ("store-tag", "store-tag")
    assert fault.reason == "record 7 does not authenticate"
    assert str(fault) == "record 7 does not authenticate [store-tag]"
    assert fault.advice() == "restore the file from a copy"


def test_a_device_error_carries_the_number_that_was_sent() -> None:
    fault = DeviceError(6, "the PIN is wrong", "try again")
    assert (fault.number, fault.reason, fault.code) == (6, "the PIN is wrong", "0x6")
    assert str(fault) == "the PIN is wrong (0x6)"
    assert fault.advice() == "try again"


def test_a_verification_error_lists_every_broken_rule_and_is_coded_by_the_first() -> None:
    fault = VerificationError([Failure("fresh", "no challenge"), Failure("pcr-0", "differs")])
    assert fault.failures == (Failure("fresh", "no challenge"), Failure("pcr-0", "differs"))
    assert fault.code == "fresh"
    assert str(fault) == "no challenge [fresh]; differs [pcr-0]"
    assert "do not rely" in fault.advice()


def test_a_verification_error_without_failures_still_has_a_code() -> None:
    assert VerificationError([]).code == "verification"


@pytest.mark.parametrize(
    "fault",
    [
        DecodeError("a", "b"),
        PeerError(1, "b"),
        UsageError("b"),
        Refused("a", "b"),
        DeviceError(1, "b"),
        VerificationError([Failure("a", "b")]),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_failure_is_caught_as_one_kind_and_has_a_code(fault: EndocarpError) -> None:
    assert isinstance(fault, EndocarpError)
    assert fault.code
    assert isinstance(fault.advice(), str)
