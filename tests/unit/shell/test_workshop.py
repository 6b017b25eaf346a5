"""Where a server is made: its device, its images, and what the relying party gets of both."""

import fcntl
import io
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.simulators.kernel import frozen_disk, no_descriptor_leaks

from endocarp.box.plan import IMAGES
from endocarp.crypto.certs import Certificate
from endocarp.crypto.digest import sha384
from endocarp.errors import Refused, UsageError
from endocarp.rot.bundle import verify_bundle
from endocarp.rot.fuses import Device
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.shell.config import Config, State
from endocarp.shell.machine import locked
from endocarp.shell.relying import RelyingParty
from endocarp.shell.workshop import ROOT_KEYS, Workshop
from endocarp.wire.suites import Suite

KEYS = {"vendor-ecc", "vendor-mldsa", "owner-ecc", "owner-mldsa", "root-ecc", "root-mldsa"}


@dataclass
class Place:
    """The directories of one server, and a workshop that works in them."""

    root: Path
    told: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        return State(self.root / "state")

    @property
    def config(self) -> Config:
        return Config(self.root / "config")

    @property
    def workshop(self) -> Workshop:
        return Workshop(self.state, self.config, self.told.append)

    def device(self) -> Device:
        return Device.from_json(self.state.device.read_text())


@pytest.fixture
def fresh(place: Path) -> Place:
    """Return a place where nothing was made yet."""
    return Place(place)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a server that was manufactured and built; tests only look at it."""
    place = Place(tmp_path_factory.mktemp("made"))
    place.workshop.manufacture()
    place.workshop.build()
    return place


@pytest.fixture
def manufactured(fresh: Place) -> Place:
    """Return a server that was manufactured, and nothing built for it."""
    fresh.workshop.manufacture()
    return fresh


def written(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())


# --- the device -----------------------------------------------------------------------------------------------------


def test_a_device_is_made_with_the_identity_that_its_certificates_vouch_for(made: Place) -> None:
    device, model = made.device(), made.state.model.read_text()
    assert device.model == model
    assert made.told[0] == f"device: made, under the model root {model}; its keys are development keys"
    anchor = RelyingParty(made.config).anchor(model)
    for name, suite, octets in (
        ("ecc384", Suite.P384, device.idevid_ecc_certificate),
        ("mldsa87", Suite.ML_DSA_87, device.idevid_mldsa_certificate),
    ):
        assert made.state.idevid_certificate(name).read_bytes() == octets
        assert Certificate.parse(octets).signed_by(anchor.certificates[suite].public)


def test_what_is_secret_is_for_its_owner_alone_and_nothing_else_lies_about(made: Place) -> None:
    assert {path.stem for path in made.config.keys.iterdir()} == KEYS
    for path in (*written(made.state.root), *made.config.keys.iterdir()):
        if path != made.state.lock:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for directory in (made.state.root, made.state.images, made.config.root, made.config.keys):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_secrets_are_never_made_twice(manufactured: Place) -> None:
    device = manufactured.state.device.read_bytes()
    with pytest.raises(UsageError, match="holds a device already") as raised:
        manufactured.workshop.manufacture()
    assert "--state" in raised.value.advice()
    assert manufactured.state.device.read_bytes() == device


def test_two_servers_of_one_owner_have_secrets_of_their_own_and_the_same_model_root(
    manufactured: Place,
) -> None:
    other = Workshop(State(manufactured.root / "other"), manufactured.config, manufactured.told.append)
    other.manufacture()
    first, second = manufactured.device(), Device.from_json(other.state.device.read_text())
    assert first.model == second.model
    assert first.fuses.vendor_pk_hash == second.fuses.vendor_pk_hash
    assert first.fuses.uds_seed != second.fuses.uds_seed
    assert first.fuses.idevid_cert_attributes != second.fuses.idevid_cert_attributes


def test_nothing_is_made_beneath_a_server_that_runs(manufactured: Place) -> None:
    for command in (manufactured.workshop.manufacture, manufactured.workshop.build):
        with locked(manufactured.state), pytest.raises(UsageError, match="a server already runs"):
            command()
    assert not manufactured.state.images.exists()


# --- the images -----------------------------------------------------------------------------------------------------


def test_the_bundle_is_one_that_the_device_takes(made: Place) -> None:
    verified = verify_bundle(made.state.bundle.read_bytes(), made.device().fuses, CALIPTRA_2_1_2)
    assert zipfile.is_zipfile(io.BytesIO(verified.fmc))
    assert zipfile.is_zipfile(io.BytesIO(verified.runtime))


def test_every_process_has_an_archive_that_runs_its_module(made: Place) -> None:
    for name, image in IMAGES.items():
        if name in ("fmc", "runtime"):  # they lie in the bundle
            assert not made.state.archive(name).exists()
        else:
            with zipfile.ZipFile(made.state.archive(name)) as archive:
                assert f"from {image.entry} import main" in archive.read("__main__.py").decode()


def test_the_relying_party_gets_the_digests_of_what_was_built(made: Place) -> None:
    model = made.device().model
    party = RelyingParty(made.config)
    assert party.names() == [model]
    expected = party.references(model)
    for name in ("box", "front", "vault"):
        assert expected.digests[name] == sha384(made.state.archive(name).read_bytes())
    assert expected.digests["manifest"] == sha384(made.state.manifest.read_bytes())
    assert json.loads((made.config.references / f"{model}.json").read_text())["model"] == model
    assert made.told[-1] == f"images: built and signed, reference values noted under {model}"


def test_to_build_again_gives_the_same_archives_signed_afresh_and_leaves_nothing_behind(made: Place) -> None:
    before = {path.name: path.read_bytes() for path in made.state.images.iterdir()}
    with no_descriptor_leaks():
        made.workshop.build()
    after = {path.name: path.read_bytes() for path in made.state.images.iterdir()}
    assert {name for name in before if before[name] != after[name]} <= {"firmware.bundle", "soc.manifest"}
    assert before.keys() == after.keys()
    assert not (made.state.root / "building").exists()


def test_what_an_interrupted_build_left_behind_is_in_nobodys_way(manufactured: Place) -> None:
    stale = State(manufactured.state.root / "building").images
    stale.mkdir(mode=0o700, parents=True)
    (stale / "leftover").write_text("half")
    manufactured.workshop.build()
    assert not (manufactured.state.images / "leftover").exists()


def test_there_is_nothing_to_build_for_without_a_device(fresh: Place) -> None:
    with pytest.raises(UsageError, match="holds no device") as raised:
        fresh.workshop.build()
    assert raised.value.advice() == "make one with: endocarp rot manufacture"
    assert not fresh.state.root.exists()


def test_images_that_cannot_be_replaced_are_named_and_left_as_they_are(manufactured: Place) -> None:
    images = manufactured.state.images
    with (
        frozen_disk(images),  # nobody renames what a disk is mounted on
        pytest.raises(UsageError, match=f"cannot write {images}"),
    ):
        manufactured.workshop.build()
    assert images.is_dir()


def test_where_the_relying_party_cannot_be_told_the_images_stay_as_they_are(made: Place) -> None:
    before = {path.name: path.stat() for path in made.state.images.iterdir()}
    made.config.references.rename(made.root / "aside")
    made.config.references.write_text("no directory")
    try:
        with pytest.raises(UsageError, match=f"cannot write {made.config.references}"):
            made.workshop.build()
    finally:
        made.config.references.unlink()
        (made.root / "aside").rename(made.config.references)
    assert {path.name: path.stat() for path in made.state.images.iterdir()} == before


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["owner-ecc", "root-mldsa"])
def test_keys_that_a_device_was_made_with_are_not_made_again(manufactured: Place, key: str) -> None:
    path = manufactured.config.keys / f"{key}.key"
    path.unlink()
    with pytest.raises(UsageError, match=f"are missing: {path}") as raised:
        manufactured.workshop.build()
    assert raised.value.advice().startswith("restore the keys")
    assert not path.exists()


def test_first_starts_at_the_same_moment_share_the_keys_of_one_owner(fresh: Place) -> None:
    workshops = [Workshop(State(fresh.root / name), fresh.config, print) for name in ("a", "b", "c")]
    with ProcessPoolExecutor() as pool:  # as servers are
        for done in [pool.submit(workshop.manufacture) for workshop in workshops]:
            done.result()
        for done in [pool.submit(workshop.build) for workshop in workshops]:
            done.result()
    models = {workshop.state.model.read_text() for workshop in workshops}
    assert models == set(RelyingParty(fresh.config).names())


def test_one_server_at_a_time_tells_the_relying_party_that_they_share(
    manufactured: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol, kept_out = RelyingParty.enrol, []

    def watched(relying: RelyingParty, *words: str) -> None:
        directory = os.open(manufactured.config.keys, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            kept_out.append(words[0])
        finally:
            os.close(directory)
        enrol(relying, *words)

    monkeypatch.setattr(RelyingParty, "enrol", watched)
    manufactured.workshop.build()
    assert kept_out == [manufactured.device().model]


@pytest.mark.parametrize("key", ["vendor-mldsa", *ROOT_KEYS])
def test_a_damaged_key_is_named(manufactured: Place, key: str) -> None:
    path = manufactured.config.keys / f"{key}.key"
    path.write_bytes(path.read_bytes()[:-1])
    suite = Suite.ML_DSA_87 if "mldsa" in key else Suite.P384
    with pytest.raises(UsageError, match=f"{path} holds no key for {suite.name}"):
        manufactured.workshop.build()


def test_a_key_that_cannot_be_read_is_named(manufactured: Place) -> None:
    path = manufactured.config.keys / "owner-ecc.key"
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=f"cannot read {path}: Is a directory"):
        manufactured.workshop.build()


# --- what else may be wrong -----------------------------------------------------------------------------------------


def test_a_model_name_that_is_no_text_or_not_there_is_named(manufactured: Place) -> None:
    manufactured.state.model.write_bytes(b"MODEL-\xff")
    with pytest.raises(UsageError, match=f"{manufactured.state.model} is damaged"):
        manufactured.workshop.build()
    manufactured.state.model.unlink()
    with pytest.raises(Refused, match=f"{manufactured.state.model}: No such file") as raised:
        manufactured.workshop.build()
    assert (raised.value.rule, "put back a copy" in raised.value.advice()) == ("device.model", True)


@pytest.mark.parametrize("name", ["silicon of somebody", "../../anchor", "/tmp/anchor"])
def test_the_servers_state_does_not_choose_under_which_name_its_root_is_believed(
    manufactured: Place, name: str
) -> None:
    manufactured.state.model.write_text(name)
    with pytest.raises(UsageError, match=f"{manufactured.state.model} names another root"):
        manufactured.workshop.build()
    assert not list(written(manufactured.config.anchors))


def test_a_disk_that_cannot_be_written_is_named(place: Path) -> None:
    with frozen_disk(place / "disk") as disk, pytest.raises(UsageError, match=f"cannot write {disk}"):
        Workshop(State(disk / "s"), Config(place / "c"), print).manufacture()


def test_a_directory_that_others_may_enter_is_no_place_for_secrets(fresh: Place) -> None:
    fresh.state.root.mkdir()
    (fresh.state.root / "theirs").write_text("")
    fresh.state.root.chmod(0o755)
    with pytest.raises(UsageError, match="is open to others"):
        fresh.workshop.manufacture()
