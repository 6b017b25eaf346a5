"""Every wire structure and every decoder, whichever there are: nothing is listed here, so nothing is forgotten."""

import dataclasses
import re
from random import Random
from types import ModuleType
from typing import Any, cast

import pytest
from fuzz.__main__ import main
from fuzz.decoders import Decoder, families, modules, public, structs
from fuzz.values import Sizes, make

from endocarp.errors import DecodeError
from endocarp.hsm.records import Pin
from endocarp.wire.codec import Struct, forms_of
from endocarp.wire.control import MemoryMode, Ready, SandboxReport, Seccomp
from endocarp.wire.custody import SealKeyReply
from endocarp.wire.hsm import Login, SetPin

ROUNDS = 40
INPUTS = 100_000
"""How many inputs the decoders of all families are attacked with, at the least."""
FAMILIES = families()
STRUCTS = structs()


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: f"{struct.__module__}.{struct.__name__}")
def test_a_struct_survives_the_wire(struct: type[Struct]) -> None:
    random = Random(struct.__qualname__)
    for _ in range(ROUNDS):
        sizes = Sizes(random)
        value = make(struct, random, sizes)
        octets = value.encode(sizes)
        assert struct.decode(octets, sizes) == value
        assert struct.decode(bytearray(octets), sizes).encode(sizes) == octets
        assert struct.SIZE in (None, len(octets))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: f"{struct.__module__}.{struct.__name__}")
def test_a_struct_refuses_every_beginning_of_its_octets_or_takes_it_as_it_is(struct: type[Struct]) -> None:
    sizes = Sizes(Random(0))
    octets = make(struct, Random(struct.__qualname__), sizes).encode(sizes)
    for size in range(min(len(octets), 200)):
        try:
            value = struct.decode(octets[:size], sizes)
        except DecodeError:
            continue
        assert struct.SIZE is None
        assert value.encode(sizes) == octets[:size]


SECRETS = re.compile(r"(old|new|.*pin|.*(key|seed|secret|entropy|password|cdi))\Z")
"""How the octets and texts are called that nobody may see in a log."""
PUBLIC = re.compile(r".*(pub(lic)?_key(_[xy])?|pubkey)\Z")


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: f"{struct.__module__}.{struct.__name__}")
def test_a_struct_does_not_show_its_secrets(struct: type[Struct]) -> None:
    for field in dataclasses.fields(cast("Any", struct)):
        base, _ = forms_of(struct)[field.name]
        if base in (bytes, str) and SECRETS.match(field.name) and not PUBLIC.match(field.name):
            assert not field.repr, f"declare {field.name} as secret()"


def test_secrets_are_declared_where_there_are_some() -> None:
    shown: list[Struct] = [
        Login(b"1234"),
        SetPin(b"1234", b"1234"),
        Pin(b"1234", b"1234"),
        SealKeyReply(b"1234"),
    ]
    shown += [Ready(SandboxReport(0, 0, 0, 0, Seccomp.OFF, MemoryMode.ORDINARY), "1234")]
    assert not [one for one in shown if "1234" in repr(one)]


@pytest.mark.parametrize("family", FAMILIES)
def test_octets_at_random_raise_nothing_but_decode_errors(family: str) -> None:
    random, attacks = Random(family), 0
    while attacks < INPUTS / len(FAMILIES):
        for decoder in FAMILIES[family]:
            decoder.attack(random)
        attacks += len(FAMILIES[family])
        assert attacks, f"nothing of {family} is attacked"


@pytest.mark.parametrize("module", list(modules()), ids=lambda module: module.__name__)
def test_no_decoder_is_left_out(module: ModuleType) -> None:
    decoders = FAMILIES.get(module.__name__.rpartition(".")[2], [])
    attacked = {decoder.name.partition(" ")[0].rstrip(",") for decoder in decoders}
    assert {name for name, _ in public(module)} <= attacked


def test_an_attack_tells_which_octets_brought_a_fault_about() -> None:
    def careless(octets: bytes) -> object:
        raise IndexError

    with pytest.raises(IndexError) as caught:
        Decoder("careless", careless).attack(Random(0))
    assert caught.value.__notes__[0].startswith("careless was given ")


def test_a_struct_that_no_random_value_can_keep_is_told() -> None:
    class Impossible(Struct):
        def check(self) -> None:
            raise DecodeError("Impossible", "never")

    with pytest.raises(ValueError, match="no random Impossible keeps its own rules"):
        make(Impossible, Random(0))


def test_a_family_can_be_fuzzed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["der", "--seconds", "0.05", "--plain"]) == 0
    assert "nothing but DecodeError" in capsys.readouterr().out
