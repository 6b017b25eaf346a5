"""Where a server is made: its device, the authority that vouches for it, and the images that it may run.

This runs when a server is first started and when its owner asks for it, never at a boot: else a changed octet
would never be refused. It holds signing keys, so it is a process of its own that ends before the server starts.
All keys lie in the configuration directory; evidence calls them development keys.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from endocarp.box.plan import FIRMWARE, IMAGES, KINDS
from endocarp.crypto import keys
from endocarp.crypto.secret import Secret
from endocarp.errors import DecodeError, UsageError
from endocarp.rot.builder import (
    KEY_NAMES,
    SigningKeys,
    build_bundle,
    build_manifest,
    public_key_hashes,
    references,
)
from endocarp.rot.dice import KeyPair
from endocarp.rot.fuses import manufacture
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import provision, root_authority, root_certificates
from endocarp.shell.archive import build, load, source_tree
from endocarp.shell.config import Config, State, make_private, sync_directory, unwritable, write
from endocarp.shell.machine import DEVICE_MODEL, locked
from endocarp.shell.relying import RelyingParty
from endocarp.wire import pem
from endocarp.wire.suites import Suite

ROOT_KEYS: Mapping[str, Suite] = {"root-ecc": Suite.P384, "root-mldsa": Suite.ML_DSA_87}
"""The keys of the provisioning authority, beside those that sign images."""

_RESTORE = "restore the keys, or make another server with --state and --config"


class Workshop:
    """Makes what lies in a state directory, with the keys of a configuration directory; `tell` hears each step."""

    def __init__(self, state: State, config: Config, tell: Callable[[str], None]) -> None:
        self.state = state
        self.config = config
        self.tell = tell

    def manufacture(self) -> None:
        """Make the device of a new server and certify its identity.

        Raises UsageError where the directory holds a device already: its secrets are never made twice.
        """
        make_private(self.state.root)
        with locked(self.state):
            if self.state.device.exists():
                hint = "to make another server, choose another directory with --state"
                raise UsageError(f"{self.state.root} holds a device already", hint)
            self._manufacture()

    def _manufacture(self) -> None:
        signing, root = self._signing_keys(), self._root_keys()
        vendor, owner = public_key_hashes(signing)
        model = _model_of(root)
        fresh = manufacture(os.urandom, model=model, vendor_pk_hash=vendor, owner_pk_hash=owner)
        device = provision(fresh, root_authority(model, root), CALIPTRA_2_1_2)
        write(self.state.idevid_certificate("ecc384"), device.idevid_ecc_certificate)
        write(self.state.idevid_certificate("mldsa87"), device.idevid_mldsa_certificate)
        write(self.state.model, model.encode())
        write(self.state.device, device.to_json().encode())
        self.tell(f"device: made, under the model root {model}; its keys are development keys")

    def build(self) -> None:
        """Build every image from the installed code, sign bundle and manifest, and note the reference values.

        Raises UsageError where there is no device, or where a server runs: it is not judged by what it does not run.
        """
        if not self.state.device.exists():
            raise UsageError(f"{self.state.root} holds no device", "make one with: endocarp rot manufacture")
        with locked(self.state):
            self._build()

    def _build(self) -> None:
        signing, root = self._signing_keys(), self._root_keys()
        model = self._model(root)
        tree = source_tree()
        archives = {name: build(image.entry, tree) for name, image in IMAGES.items()}
        images = {firmware_id: archives[name] for name, firmware_id in FIRMWARE.items()}
        bundle = build_bundle(archives["fmc"], archives["runtime"], signing)
        manifest = build_manifest(images, signing)
        beside = {"box", *(kind.image for kind in KINDS.values())}
        fresh = self._prepare({name: archives[name] for name in beside}, bundle, manifest)
        found = references(model=model, bundle=bundle, manifest=manifest, images=images, rom=archives["rom"])
        anchor = root_certificates(model, root)
        with _alone_in(self.config.keys):
            RelyingParty(self.config).enrol(
                model,
                pem.encode(pem.CERTIFICATE, anchor.ecc) + pem.encode(pem.CERTIFICATE, anchor.mldsa),
                json.dumps(found, indent=2) + "\n",
            )
        self._place(fresh)
        self.tell(f"images: built and signed, reference values noted under {model}")

    def _prepare(self, archives: Mapping[str, bytes], bundle: bytes, manifest: bytes) -> State:
        """Write the images beside those that are there."""
        fresh = State(self.state.root / "building")
        shutil.rmtree(fresh.root, ignore_errors=True)
        make_private(fresh.images)
        for name, octets in archives.items():
            write(fresh.archive(name), octets)
        write(fresh.bundle, bundle)
        write(fresh.manifest, manifest)
        return fresh

    def _place(self, fresh: State) -> None:
        """Put fresh images in the place of those that are there, all of them or none."""
        before = fresh.root / "before"
        try:
            if self.state.images.exists():
                self.state.images.rename(before)
            fresh.images.rename(self.state.images)
            sync_directory(self.state.root)
        except OSError as error:
            if before.exists() and not self.state.images.exists():
                before.rename(self.state.images)
            raise unwritable(self.state.images, error) from None
        shutil.rmtree(fresh.root, ignore_errors=True)

    def _model(self, root: KeyPair) -> str:
        """Return the name of the model root, under which the relying party will believe it.

        Raises UsageError where the state directory says another one: it does not choose what it is judged by.
        """
        hint = "put back a copy of it, or name the configuration directory that the device was made with by --config"
        try:
            found = load(self.state.model, DEVICE_MODEL, hint).decode("ascii").strip()
        except UnicodeDecodeError:
            raise UsageError(f"{self.state.model} is damaged", hint) from None
        if found != _model_of(root):
            raise UsageError(f"{self.state.model} names another root than {_model_of(root)}", hint)
        return found

    def _signing_keys(self) -> SigningKeys:
        return SigningKeys.load(self._keys(KEY_NAMES))

    def _root_keys(self) -> KeyPair:
        named = self._keys(ROOT_KEYS)
        return {suite: keys.load(suite, named[name]) for name, suite in ROOT_KEYS.items()}

    def _keys(self, wanted: Mapping[str, Suite]) -> dict[str, Secret]:
        """Read keys by name; where none has ever been made, make them. Other servers may do so at the same moment.

        Raises UsageError where a device exists whose keys are gone: new ones could not sign for it.
        """
        make_private(self.config.keys)
        with _alone_in(self.config.keys):
            return self._keys_alone(wanted)

    def _keys_alone(self, wanted: Mapping[str, Suite]) -> dict[str, Secret]:
        paths = {name: self.config.keys / f"{name}.key" for name in wanted}
        missing = [str(path) for path in paths.values() if not path.exists()]
        if missing and self.state.device.exists():
            raise UsageError(
                f"the keys that this device was made with are missing: {', '.join(missing)}",
                _RESTORE,
            )
        for name, suite in wanted.items():
            if not paths[name].exists():
                with keys.generate(suite).export() as secret:
                    write(paths[name], secret.view)
        return {name: _read_key(paths[name], suite) for name, suite in wanted.items()}


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Wait until nobody else is at work in a directory, and keep everybody out until the end."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_key(path: Path, suite: Suite) -> Secret:
    """Read a key that was exported, and see that it is one. Raises UsageError, which names the file, where it is none."""
    try:
        with path.open("rb", buffering=0) as source:
            secret = Secret.empty(os.fstat(source.fileno()).st_size)
            source.readinto(secret.view)
        keys.load(suite, secret)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", _RESTORE) from None
    except DecodeError:
        raise UsageError(f"{path} holds no key for {suite.name}", _RESTORE) from None
    return secret


def _model_of(root: KeyPair) -> str:
    return f"MODEL-{root[Suite.P384].public.raw[-4:].hex()}"
