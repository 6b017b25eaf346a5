"""What the client's modules of p11-kit 0.24.1, 0.25.5 and 0.26.4 send, recorded, one dialect each.

Each line of `dialogues/` is the octet of the dialect or one frame, in hexadecimal. The application was python-pkcs11:
it makes a pair on P-256, signs and verifies, makes an RSA pair, signs (PKCS #1 in parts, PSS), encrypts (OAEP),
draws random octets, hashes, and where the module lets AES-GCM through, encrypts and decrypts with it.
"""

import socket
import threading
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.simulators.token_vault import TokenVault

from endocarp.core import Ask, Close
from endocarp.hsm.token import TokenConnection
from endocarp.shell.front import ApplicationLine
from endocarp.wire.hsm import Decrypt, Encrypt, Generate, Logout, Request, Sign
from endocarp.wire.p11 import choose_dialect, decode_frame
from endocarp.wire.p11_calls import Call, decode_reply, decode_request
from endocarp.wire.suites import Cipher, Scheme, Suite

DIALOGUES = {
    path.stem.removeprefix("p11-kit-"): [bytes.fromhex(line) for line in path.read_text().splitlines()]
    for path in sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
}
DIALECTS = {"0.24.1": 0, "0.25.5": 1, "0.26.4": 2}


def replay(dialogue: Sequence[bytes]) -> tuple[list[Request[Any]], list[Call]]:
    """Send a dialogue frame by frame; return what the vault was asked and which calls were answered."""
    ((dialect,), *frames) = dialogue
    vault, token = TokenVault(), TokenConnection(0, choose_dialect(dialect))
    answered = []
    for frame in frames:
        events = token.receive(frame, 0.0)
        while events:
            event = events.pop(0)
            if isinstance(event, Ask):
                events += token.resume(vault(event.request))
        (answer,) = token.outgoing()
        asked_code, asked = decode_frame(frame)
        code, body = decode_frame(answer)
        call, _ = decode_request(asked, dialect)
        assert call is not None
        assert code == asked_code
        assert not isinstance(decode_reply(call, body, dialect), int), call.name
        answered.append(call)
    return vault.requests, answered


def test_each_dialect_was_recorded() -> None:
    assert {version: dialogue[0][0] for version, dialogue in DIALOGUES.items()} == DIALECTS


@pytest.mark.parametrize("version", DIALECTS)
def test_every_call_of_a_recorded_dialogue_is_answered(version: str) -> None:
    requests, answered = replay(DIALOGUES[version])
    assert answered[0] is Call.C_Initialize
    assert {Call.C_Login, Call.C_GenerateKeyPair, Call.C_FindObjects, Call.C_Sign, Call.C_Verify} <= {
        *answered
    }
    signed = [request.scheme for request in requests if isinstance(request, Sign)]
    assert signed == [Scheme.ECDSA_DIGEST, Scheme.RSA_PKCS1, Scheme.RSA_PSS_DIGEST_SHA256]
    encrypted = [request.cipher for request in requests if isinstance(request, Encrypt | Decrypt)]
    # The module of 0.24.1 keeps AES-GCM from its applications.
    gcm = [] if version == "0.24.1" else [Cipher.AES_GCM, Cipher.AES_GCM]
    assert encrypted == [Cipher.RSA_OAEP_SHA256, *gcm]


@pytest.mark.parametrize("piece", [7, 1 << 16])
@pytest.mark.parametrize("version", DIALECTS)
def test_the_line_gives_the_frames_that_were_recorded_however_they_are_cut(version: str, piece: int) -> None:
    frames = DIALOGUES[version][1:]
    octets = b"".join(frames)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = ApplicationLine(ours)

        def write() -> None:
            for start in range(0, len(octets), piece):
                theirs.sendall(octets[start : start + piece])

        writer = threading.Thread(target=write)
        writer.start()
        assert [line.receive() for _ in frames] == frames
        writer.join()


def test_the_vault_is_asked_the_same_whatever_the_dialect() -> None:
    oldest, middle, newest = (replay(dialogue)[0] for dialogue in DIALOGUES.values())
    assert middle == newest
    assert before_gcm(oldest) == before_gcm(newest)


def before_gcm(requests: list[Request[Any]]) -> list[Request[Any]]:
    """Return what was asked until the application made a key for AES, or came to its end."""
    return list(
        takewhile(
            lambda asked: (
                not (
                    isinstance(asked, Logout) or (isinstance(asked, Generate) and asked.suite is Suite.AES256)
                )
            ),
            requests,
        )
    )


def spoil(frame: bytes, chance: Random) -> bytes:
    """Change, take away or add some octets of a frame's body; the header stays true."""
    start = 12 + int.from_bytes(frame[4:8], "big")
    options, body = frame[12:start], bytearray(frame[start:])
    at = chance.randrange(len(body))
    match chance.randrange(3):
        case 0:
            body[at] = chance.choice((0, 1, 2, 0x40, 0x7F, 0x80, 0xFF))
        case 1:
            del body[at : at + chance.randrange(1, 5)]
        case _:
            body[at:at] = chance.randbytes(chance.randrange(1, 9))
    return frame[:8] + len(body).to_bytes(4, "big") + options + body


@pytest.mark.parametrize("version", DIALECTS)
def test_a_spoilt_dialogue_is_answered_call_by_call_and_raises_nothing(version: str) -> None:
    chance = Random(version)
    for _ in range(60):
        vault, token = TokenVault(), TokenConnection(0, DIALECTS[version])
        for frame in DIALOGUES[version][1:]:
            spoilt = spoil(frame, chance) if chance.random() < 0.2 else frame
            events = token.receive(spoilt, 0.0)
            while events:
                event = events.pop(0)
                if isinstance(event, Ask):
                    events += token.resume(vault(event.request))
                else:
                    assert event == Close("C_Finalize")
            assert len(token.outgoing()) == 1
