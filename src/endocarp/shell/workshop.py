"""Where a server is made: its device, the authority that vouches for it, and the images that it may run.

This runs when a server is first started and when its owner asks for it, never at a boot: else a changed octet
would never be refused. It holds signing keys, so it is a process of its own that ends before the server starts.
All keys lie in the configuration directory; evidence calls them development keys.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from endocarp.box.plan import FIRMWARE
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
from endocarp.shell.config import Config, State, make_private, unwritable, write
from endocarp.shell.machine import locked
from endocarp.shell.relying import RelyingParty
from endocarp.wire import pem
from endocarp.wire.suites import Suite

ENTRIES: Mapping[str, str] = {
    "rom": "endocarp.shell.rom",
    "fmc": "endocarp.shell.fmc",
    "runtime": "endocarp.shell.rot",
    "box": "endocarp.shell.box",
    "front": "endocarp.shell.front",
    "vault": "endocarp.shell.vault",
}
"""The module whose `main()` each archive runs."""

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
        archives = {name: build(entry, tree) for name, entry in ENTRIES.items()}
        images = {firmware_id: archives[name] for name, firmware_id in FIRMWARE.items()}
        bundle = build_bundle(archives["fmc"], archives["runtime"], signing)
        manifest = build_manifest(images, signing)
        self._place({name: archives[name] for name in ("rom", *FIRMWARE)}, bundle, manifest)
        found = references(model=model, bundle=bundle, manifest=manifest, images=images, rom=archives["rom"])
        anchor = root_certificates(model, root)
        RelyingParty(self.config).enrol(
            model,
            pem.encode(pem.CERTIFICATE, anchor.ecc) + pem.encode(pem.CERTIFICATE, anchor.mldsa),
            json.dumps(found, indent=2) + "\n",
        )
        self.tell(f"images: built and signed, reference values noted under {model}")

    def _place(self, archives: Mapping[str, bytes], bundle: bytes, manifest: bytes) -> None:
        """Put the images into the state directory, all of them or none."""
        fresh = State(self.state.root / "building")
        shutil.rmtree(fresh.root, ignore_errors=True)
        make_private(fresh.images)
        for name, octets in archives.items():
            write(fresh.archive(name), octets)
        write(fresh.bundle, bundle)
        write(fresh.manifest, manifest)
        shutil.rmtree(self.state.images, ignore_errors=True)
        try:
            fresh.images.rename(self.state.images)
            fresh.root.rmdir()
        except OSError as error:
            raise unwritable(self.state.images, error) from None

    def _model(self, root: KeyPair) -> str:
        """Return the name of the model root, under which the relying party will believe it.

        Raises UsageError where the state directory says another one: it does not choose what it is judged by.
        """
        hint = "put back a copy of it, or name the configuration directory that the device was made with by --config"
        try:
            found = load(self.state.model).decode("ascii").strip()
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
        """Read keys by name; where none has ever been made, make them.

        Raises UsageError where a device exists whose keys are gone: new ones could not sign for it.
        """
        make_private(self.config.keys)
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
                    write(paths[name], bytes(secret.view))
        return {name: _read_key(paths[name], suite) for name, suite in wanted.items()}


def _read_key(path: Path, suite: Suite) -> Secret:
    """Read a key that was exported, and see that it is one. Raises UsageError, which names the file, where it is none."""
    try:
        secret = Secret(path.read_bytes())
        keys.load(suite, secret)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", _RESTORE) from None
    except DecodeError:
        raise UsageError(f"{path} holds no key for {suite.name}", _RESTORE) from None
    return secret


def _model_of(root: KeyPair) -> str:
    return f"MODEL-{root[Suite.P384].public.raw[-4:].hex()}"
