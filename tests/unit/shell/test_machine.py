"""A state directory that is taken into possession: all of it or nothing, for one box at a time."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.kernel import frozen_disk, no_descriptor_leaks

from endocarp.crypto.digest import sha384
from endocarp.errors import Refused, UsageError
from endocarp.shell.archive import seal
from endocarp.shell.config import State
from endocarp.shell.machine import SealedImage, locked, machine
from endocarp.wire.mailbox import PopulateIdevEcc384Cert, PopulateIdevMldsa87Cert

SOCKETS = {"mailbox.sock", "admin.sock", "partition-0/native.sock", "partition-0/p11-kit.sock"}


@pytest.fixture
def state(place: Path) -> State:
    """Return a state directory with everything that a box loads, each file with its own name in it."""
    state = State(place / "s")
    state.images.mkdir(mode=0o700, parents=True)
    state.root.chmod(0o700)
    archives = [state.archive(name) for name in ("rom", "front", "vault")]
    certificates = [state.idevid_certificate(suite) for suite in ("ecc384", "mldsa87")]
    for path in (*archives, *certificates, state.bundle, state.manifest):
        path.write_text(path.name)
    state.model.write_text("MODEL-test\n")
    return state


def sockets(state: State) -> set[str]:
    return {str(path.relative_to(state.root)) for path in state.root.rglob("*") if path.is_socket()}


@pytest.fixture
def own() -> Iterator[int]:
    """Return the image of the box itself."""
    fd = seal(b"box.zip", "box")
    yield fd
    os.close(fd)


def test_memory_that_can_still_change_is_no_image() -> None:
    loose = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with pytest.raises(Refused, match=r"image\.seal"):
        SealedImage.of(loose)
    os.close(loose)


def test_a_machine_has_everything_that_lies_in_its_directory(state: State, own: int) -> None:
    with machine(state, own) as found:
        assert (found.state, found.model) == (state, "MODEL-test")
        for name, image in found.images.items():
            octets = f"{name}.zip".encode()
            assert os.pread(image.descriptor, 100, 0) == octets
            assert (image.size, image.digest) == (len(octets), sha384(octets))
        assert set(found.images) == {"box", "rom", "front", "vault"}
        assert (found.firmware, found.manifest) == (b"firmware.bundle", b"soc.manifest")
        assert found.idevid == {
            "ecc384": PopulateIdevEcc384Cert(b"idevid-ecc384.der"),
            "mldsa87": PopulateIdevMldsa87Cert(b"idevid-mldsa87.der"),
        }


def test_every_socket_listens_for_its_owner_alone_and_keeps_messages_apart_where_it_should(
    state: State,
    own: int,
) -> None:
    with machine(state, own) as found:
        assert sockets(state) == SOCKETS
        assert all(stat.S_IMODE((state.root / name).stat().st_mode) == 0o600 for name in SOCKETS)
        assert set(found.doors) == {"native-0", "p11-kit-0"}
        kinds = [one.type for one in (found.mailbox, found.admin, found.doors["p11-kit-0"])]
        assert kinds == [socket.SOCK_STREAM] * 3
        assert found.doors["native-0"].type == socket.SOCK_SEQPACKET
        for name in SOCKETS:
            kind = socket.SOCK_SEQPACKET if "native" in name else socket.SOCK_STREAM
            with socket.socket(socket.AF_UNIX, kind) as caller:
                caller.connect(str(state.root / name))


def test_a_directory_that_others_may_enter_is_not_taken(state: State, own: int) -> None:
    state.root.chmod(0o755)
    with pytest.raises(UsageError, match="open to others"), machine(state, own):
        pass
    assert sockets(state) == set()


def test_the_store_of_a_partition_is_for_its_owner_alone(state: State, own: int) -> None:
    with machine(state, own):
        for directory in (state.partition(0), state.store(0)):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_nothing_is_left_behind_but_the_lock_and_the_store(state: State, own: int) -> None:
    before = set(state.root.rglob("*"))
    with no_descriptor_leaks(), machine(state, own):
        state.admin_socket.unlink()  # somebody has tidied up meanwhile
    assert set(state.root.rglob("*")) - before == {state.lock, state.partition(0), state.store(0)}
    with machine(state, own):
        pass


def test_two_boxes_do_not_run_on_one_directory(state: State, own: int) -> None:
    with (
        machine(state, own),
        pytest.raises(UsageError, match="a server already runs on") as raised,
        machine(state, own),
    ):
        pass
    assert "--state" in raised.value.advice()


def test_what_a_box_that_was_killed_left_behind_is_in_nobodys_way(state: State, own: int) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(state.admin_socket))
    with machine(state, own) as found, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(state.admin_socket))
        found.admin.accept()[0].close()


@pytest.mark.parametrize(
    ("missing", "rule", "advice"),
    [
        ("images/vault.zip", "image.missing", "--rebuild"),
        ("images/firmware.bundle", "image.missing", "--rebuild"),
        ("images/soc.manifest", "image.missing", "--rebuild"),
        ("idevid-mldsa87.der", "device.idevid", "put back a copy of it"),
        ("model", "device.model", "put back a copy of it"),
    ],
)
def test_what_is_missing_is_named_and_everything_taken_is_given_back(
    state: State, own: int, missing: str, rule: str, advice: str
) -> None:
    (state.root / missing).unlink()
    with (
        no_descriptor_leaks(),
        pytest.raises(Refused, match=f"{state.root / missing}: No such") as raised,
        machine(state, own),
    ):
        pass
    assert (raised.value.rule, sockets(state)) == (rule, set())
    assert advice in raised.value.advice()
    assert ("--rebuild" in raised.value.advice()) == (advice == "--rebuild")
    locked(state).close()


def test_what_is_in_the_way_of_a_socket_is_named_and_everything_taken_is_given_back(
    state: State, own: int
) -> None:
    state.partition(0).mkdir(mode=0o700)
    state.p11_kit_socket(0).write_text("precious")
    with no_descriptor_leaks(), pytest.raises(UsageError, match="is in the way"), machine(state, own):
        pass
    assert sockets(state) == set()
    assert state.p11_kit_socket(0).read_text() == "precious"


def test_a_model_name_that_is_no_text_is_shown_as_far_as_it_goes(state: State, own: int) -> None:
    state.model.write_bytes(b"MODEL-\xff\n")
    with machine(state, own) as found:
        assert found.model == "MODEL-\N{REPLACEMENT CHARACTER}"


def test_a_directory_that_cannot_be_written_is_named_with_advice(place: Path) -> None:
    with (
        frozen_disk(place / "disk") as disk,
        no_descriptor_leaks(),
        pytest.raises(UsageError, match=f"cannot write {disk / 'lock'}") as raised,
    ):
        locked(State(disk))
    assert "--state" in raised.value.advice()


def test_a_lock_in_a_directory_that_is_not_there_is_named_too(place: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        locked(State(place / "nowhere"))
