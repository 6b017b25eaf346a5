"""Every decoder of the house by family, a family being a module of `endocarp.wire`, and certificates.

Structs, classes with a `decode` and functions called `decode…`, `open…` or `split…` are found by
themselves where they need nothing but octets. The others stand in `OTHERS`, with what they need.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any

import cbor2

from endocarp import wire
from endocarp.crypto import certs
from endocarp.crypto.keys import generate
from endocarp.errors import DecodeError, DeviceError
from endocarp.wire import cbor, cose, custody, der, dpe, evidence, hsm, mailbox, p11_calls, pem
from endocarp.wire.codec import Struct
from endocarp.wire.suites import Suite
from fuzz.values import Sizes, make, spoil

TAKERS = ("decode", "open", "split")
"""How the names of functions begin that take octets apart."""


@dataclass(frozen=True)
class Decoder:
    """What takes a stranger's octets: its name, the call, and what makes well-formed input to be spoilt."""

    name: str
    decode: Callable[[bytes], object]
    seed: Callable[[Random], bytes] = lambda random: random.randbytes(random.randint(0, 100))

    def attack(self, random: Random) -> None:
        """Give it one input, of which it may refuse any with DecodeError and nothing else."""
        octets = spoil(self.seed(random), random)
        try:
            self.decode(octets)
        except DecodeError:
            return
        except Exception as fault:
            fault.add_note(f"{self.name} was given {octets.hex()}")
            raise


def modules() -> Iterator[ModuleType]:
    """Import and return every module of `endocarp.wire`."""
    for found in pkgutil.iter_modules(wire.__path__):
        yield importlib.import_module(f"{wire.__name__}.{found.name}")


def structs() -> list[type[Struct]]:
    """Return every struct that a module of `endocarp.wire` declares."""
    names = {module.__name__ for module in modules()}
    return sorted(
        (found for found in _below(Struct) if found.__module__ in names),
        key=lambda found: (found.__module__, found.__qualname__),
    )


def _below(cls: type[Struct]) -> set[type[Struct]]:
    children = set(cls.__subclasses__())
    return children.union(*(_below(child) for child in children))


def families() -> dict[str, list[Decoder]]:
    """Return the decoders of each family by its name."""
    found: dict[str, list[Decoder]] = {"certs": []}
    for module in modules():
        found[_family(module.__name__)] = [*_plain_decoders(module)]
    for struct in structs():
        found[_family(struct.__module__)].append(_of_struct(struct))
    for family, decoders in OTHERS.items():
        found[family] += decoders()
    return {family: decoders for family, decoders in found.items() if decoders}


def _family(module: str) -> str:
    return module.rpartition(".")[2]


def _of_struct(struct: type[Struct]) -> Decoder:
    sizes = Sizes(Random(0))
    return Decoder(
        struct.__name__,
        lambda octets: struct.decode(octets, sizes),
        lambda random: make(struct, random, sizes).encode(sizes),
    )


def _plain_decoders(module: ModuleType) -> Iterator[Decoder]:
    for name, member in public(module):
        if _arguments(member) == 1:
            yield Decoder(name, member)


def public(module: ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """Return what a module offers to take octets apart, structs left out."""
    for name, member in inspect.getmembers(module):
        if getattr(member, "__module__", "") != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(member) and name.startswith(TAKERS):
            yield name, member
        elif inspect.isclass(member) and not issubclass(member, Struct) and hasattr(member, "decode"):
            yield f"{name}.decode", member.decode


def _arguments(member: Callable[..., object]) -> int:
    """Return how many arguments have no default."""
    parameters = inspect.signature(member).parameters.values()
    return sum(parameter.default is inspect.Parameter.empty for parameter in parameters)


# --- decoders that need more than octets ----------------------------------------------------------------------


def _cbor() -> list[Decoder]:
    return [Decoder("decode", lambda octets: cbor.decode("fuzz", octets, limit=1 << 16), _some_cbor)]


def _some_cbor(random: Random) -> bytes:
    return cbor2.dumps(_some_value(random, 4), canonical=True)


def _some_value(random: Random, depth: int) -> object:
    match random.randrange(8 if depth else 5):
        case 0:
            return random.randint(-(1 << 64), (1 << 64) - 1)
        case 1:
            return random.randbytes(random.randrange(20))
        case 2:
            return "text é"[: random.randrange(7)]
        case 3:
            return random.choice((True, False, None, 1.5))
        case 4:
            return random.randrange(24)
        case 5:
            return [_some_value(random, depth - 1) for _ in range(random.randrange(4))]
        case 6:
            return {random.randrange(40): _some_value(random, depth - 1) for _ in range(random.randrange(4))}
        case _:
            return cbor2.CBORTag(random.choice((0, 1, 2, 4, 18, 98, 258)), _some_value(random, depth - 1))


def _hsm() -> list[Decoder]:
    def decode(octets: bytes) -> object:
        number, _ = hsm.decode_header(octets)
        return (
            hsm.read_body(hsm.REQUESTS[hsm.Operation(number)], octets)
            if number in set(hsm.Operation)
            else None
        )

    def seed(random: Random) -> bytes:
        return hsm.encode_request(make(random.choice([*hsm.REQUESTS.values()]), random), tag=7)

    return [Decoder("read_body", decode, seed)]


def _mailbox() -> list[Decoder]:
    decoders = []
    for command, request in mailbox.REQUESTS.items():
        name = request.__name__
        decoders += [
            Decoder(
                f"without_checksum {name}",
                functools.partial(_open, command, request),
                lambda random, request=request: mailbox.with_checksum(make(request, random)),  # type: ignore[misc]
            ),
            Decoder(
                f"decode_reply {name}",
                functools.partial(mailbox.decode_reply, request),
                lambda random, reply=request.REPLY: mailbox.with_headers(make(reply, random)),  # type: ignore[misc]
            ),
            Decoder(
                f"decode_body {name}",
                functools.partial(mailbox.decode_body, request),
                lambda random, request=request: make(request, random).encode() + bytes(3),  # type: ignore[misc]
            ),
        ]
    return decoders


def _open(command: int, request: type[mailbox.Request[Any]], octets: bytes) -> object:
    return mailbox.decode_body(request, mailbox.without_checksum(command, octets))


def _custody() -> list[Decoder]:
    return [
        Decoder(
            f"decode_reply {request.__name__}",
            functools.partial(_answered, custody.decode_reply, request),
            lambda random, reply=request.REPLY: custody.encode_reply(make(reply, random)),  # type: ignore[misc]
        )
        for request in custody.REQUESTS.values()
    ]


def _dpe() -> list[Decoder]:
    return [
        Decoder(
            f"decode_response {request.__name__}",
            functools.partial(_answered, dpe.decode_response, request),
            lambda random, reply=request.REPLY: dpe.encode_response(4, 0, make(reply, random)),  # type: ignore[misc]
        )
        for request in dpe.Request.__subclasses__()
    ]


def _answered(decode: Callable[[Any, bytes], object], request: type[Struct], octets: bytes) -> object:
    """Decode a reply; that it reports a failure of the other side is an answer too."""
    try:
        return decode(request, octets)
    except DeviceError as failure:
        return failure


def _p11_calls() -> list[Decoder]:
    decoders = []
    for dialect in range(3):
        for call in p11_calls.Call:
            decoders += [
                Decoder(
                    f"decode_request {call.name} {dialect}",
                    lambda octets, dialect=dialect: p11_calls.decode_request(octets, dialect),  # type: ignore[misc]
                    functools.partial(_some_call, call, call.request),
                ),
                Decoder(
                    f"decode_reply {call.name} {dialect}",
                    lambda octets, call=call, dialect=dialect: p11_calls.decode_reply(call, octets, dialect),  # type: ignore[misc]
                    functools.partial(_some_call, call, call.reply),
                ),
            ]
    return decoders


def _some_call(call: int, signature: str, random: Random) -> bytes:
    """Return a call with the right signature, so that what follows is looked at."""
    head = call.to_bytes(4, "big") + len(signature).to_bytes(4, "big") + signature.encode()
    words = (
        b"\0\0\0\0",
        b"\0\0\0\1",
        b"\0\0\0\2",
        b"\0\0\0\x08",
        b"\xff\xff\xff\xff",
        b"\0",
        b"\1",
        b"\x40\0\2\x11",
    )
    return head + b"".join(random.choice(words) for _ in range(random.randrange(30)))


_DER_READS: tuple[Callable[[der.Reader], object], ...] = (
    der.Reader.element,
    der.Reader.sequence,
    der.Reader.set_,
    der.Reader.integer,
    der.Reader.oid,
    der.Reader.octet_string,
    der.Reader.bit_string,
    der.Reader.bits,
    der.Reader.text,
    der.Reader.time,
    der.Reader.boolean,
    der.Reader.null,
    der.Reader.end,
)


def _der() -> list[Decoder]:
    def seed(random: Random) -> bytes:
        tag = random.choice((1, 2, 3, 4, 5, 6, 12, 19, 23, 24, 0x30, 0x31, 0xA0))
        return der.tlv(tag, random.choice((b"", b"20230101000000Z", random.randbytes(random.randrange(200)))))

    return [
        Decoder(read.__name__, lambda octets, read=read: read(der.Reader(octets, "fuzz")), seed)  # type: ignore[misc]
        for read in _DER_READS
    ]


def _certs() -> list[Decoder]:
    return [Decoder("Certificate.parse", certs.Certificate.parse, lambda random: _certificate())]


@functools.cache
def _certificate() -> bytes:
    return certs.self_signed_ca(certs.Name("Root", "1"), generate(Suite.P384))


def _cose() -> list[Decoder]:
    def seed(random: Random) -> bytes:
        signature = cose.Signature(cose.Algorithm.ESP384, random.randbytes(20), random.randbytes(96))
        return cose.SignedMessage("text/plain", random.randbytes(9), (signature,)).encode()

    return [Decoder("SignedMessage.decode, well-formed", cose.SignedMessage.decode, seed)]


def _evidence() -> list[Decoder]:
    return [_of_sample(sample) for sample in _SAMPLES]


def _of_sample(sample: evidence.PartitionEvidence | evidence.PartitionReport | evidence.Evidence) -> Decoder:
    octets = sample.encode()
    return Decoder(f"{type(sample).__name__}.decode, well-formed", type(sample).decode, lambda random: octets)


_PARTITION = evidence.PartitionEvidence(
    b"report", {Suite.P384: b"certificate", Suite.ML_DSA_87: b"certificate"}
)
_REPORT = evidence.PartitionReport(
    nonce=bytes(32),
    rt_alias_key_id=bytes(20),
    partition_id=1,
    image_digest=bytes(48),
    memory_mode="secret",
    sandbox={"seccomp": "filter"},
    generation=3,
    object_count=4,
)
_EVIDENCE = evidence.Evidence(
    nonce=bytes(32),
    rt_alias_key_id=bytes(20),
    chains={suite: evidence.Chain(b"1", b"2", b"3", b"4", b"5") for suite in evidence.SUITES},
    quotes=dict.fromkeys(evidence.SUITES, b"quote"),
    fw_info=b"info",
    pcr_log=b"log",
    stash_log=(evidence.StashEntry(1, "box", bytes(48), 0),),
    partitions=(_PARTITION,),
    inventory=(evidence.Component("python", bytes(48)),),
    statements=(evidence.Statement("memory", "memfd_secret", evidence.Status.ENFORCED, ""),),
)
_SAMPLES = (_PARTITION, _REPORT, _EVIDENCE)


def _pem() -> list[Decoder]:
    def read(octets: bytes) -> object:
        return pem.decode(pem.CERTIFICATE, octets.decode("latin-1"))

    def seed(random: Random) -> bytes:
        return pem.encode(pem.CERTIFICATE, random.randbytes(random.randrange(100))).encode()

    return [Decoder("decode", read, seed)]


OTHERS: dict[str, Callable[[], list[Decoder]]] = {
    "cbor": _cbor,
    "certs": _certs,
    "cose": _cose,
    "custody": _custody,
    "der": _der,
    "dpe": _dpe,
    "evidence": _evidence,
    "hsm": _hsm,
    "mailbox": _mailbox,
    "p11_calls": _p11_calls,
    "pem": _pem,
}
"""The decoders of several arguments, by family."""
