"""A root of trust in service, in memory: the real cores of every stage, joined without sockets.

server = manufacture_server()
server.box.execute(mailbox.Version())          # privilege level 0
server.stranger.execute(mailbox.Version())     # level 1
"""

import hashlib
from dataclasses import dataclass

from endocarp.core import Attach
from endocarp.crypto import keys
from endocarp.rot import dice, kv
from endocarp.rot.builder import SigningKeys, build_bundle, build_manifest, public_key_hashes
from endocarp.rot.custody import CustodyConnection
from endocarp.rot.dispatch import Responder
from endocarp.rot.fmc import run_fmc
from endocarp.rot.fuses import Device, manufacture
from endocarp.rot.kv import KeyVault
from endocarp.rot.mailbox import MailboxConnection
from endocarp.rot.profile import CALIPTRA_2_1_2
from endocarp.rot.provision import provision, root_authority, root_certificates
from endocarp.rot.rom import Rom
from endocarp.rot.runtime import Runtime
from endocarp.wire import custody, dpe, mailbox
from endocarp.wire.handoff import CertificatePair, Handoff
from endocarp.wire.mailbox import (
    PL0_CALLER,
    PL1_CALLER,
    AuthResult,
    ImageSource,
    MailboxClient,
    Reply,
    Request,
    decode_reply,
)
from endocarp.wire.manifest import FirmwareId

ROM, FMC, RUNTIME = b"rom archive" * 9, b"fmc archive" * 50, b"runtime archive" * 300
IMAGES = {FirmwareId.BOX: b"box" * 100, FirmwareId.FRONT: b"front" * 80, FirmwareId.VAULT: b"vault" * 60}
NONCE = bytes(range(32))
MODEL = "MODEL Endocarp Root"


class Caller:
    """A caller of the mailbox: our client against our core, joined without a socket."""

    def __init__(self, responder: Responder, number: int) -> None:
        self.connection = MailboxConnection(responder, number)
        self.client = MailboxClient()
        self.attached: list[bytes] = []

    def call(self, request: Request[Reply], image: bytes | None = None) -> bytes:
        if image is not None:
            self.connection.attach(memoryview(image))
        if isinstance(request, mailbox.AttachCustody):
            self.connection.attach_channel()
        events = self.connection.receive(self.client.request(request), 0.0)
        self.attached += [event.message for event in events if isinstance(event, Attach)]
        (frame,) = self.connection.outgoing()
        octets = self.client.receive(frame)
        assert octets is not None
        return octets

    def execute(self, request: Request[Reply], image: bytes | None = None) -> Reply:
        return decode_reply(request, self.call(request, image))

    def dpe(self, profile: dpe.Profile, request: dpe.Request[dpe.Reply]) -> dpe.Reply:
        command = dpe.encode_command(profile, request)
        carrier: Request[mailbox.DataReply]
        if profile is dpe.Profile.P384_SHA384:
            carrier = mailbox.InvokeDpeEcc384(command)
        else:
            carrier = mailbox.InvokeDpeMldsa87(0, bytes(12), command)
        return dpe.decode_response(request, self.execute(carrier).data)


@dataclass
class Server:
    """Everything that a boot leaves for the tests to look at."""

    root: CertificatePair
    device: Device
    bundle: bytes
    manifest: bytes
    vault: KeyVault
    runtime: Runtime
    box: Caller
    stranger: Caller


def authorize(server: Server, fw_id: FirmwareId) -> None:
    """Hand an image over as box does, in memory beside the frame."""
    image = IMAGES[fw_id]
    asked = mailbox.AuthorizeAndStash(fw_id, bytes(48), bytes(48), 0, 0, ImageSource.LOAD_ADDRESS, len(image))
    assert server.box.execute(asked, image).auth_req_result == AuthResult.AUTHORIZED


def boot(device: Device, bundle: bytes) -> tuple[KeyVault, Runtime]:
    """Take a device from reset to service, each hand-off table through its octets."""
    vault = KeyVault(memoryview(bytearray(kv.SIZE)))
    rom = Rom(device, vault, ROM)
    box = Caller(rom, PL0_CALLER)
    box.execute(mailbox.FirmwareLoad(bundle))
    assert rom.result is not None
    left = Handoff.decode(rom.result.table.encode())
    handoff = run_fmc(left, vault, rom.result.runtime)
    return vault, Runtime(Handoff.decode(handoff.encode()), vault)


def manufacture_server(runtime: bytes = RUNTIME) -> Server:
    """Make a device, build and sign its firmware, and boot it until the SoC manifest is in force."""
    signing = SigningKeys.generate()
    root_keys = {suite: keys.generate(suite) for suite in dice.SUITES}
    vendor, owner = public_key_hashes(signing)
    entropy = iter(range(1 << 16))
    device = manufacture(
        lambda size: hashlib.shake_128(bytes([next(entropy)])).digest(size),
        model=MODEL,
        vendor_pk_hash=vendor,
        owner_pk_hash=owner,
    )
    device = provision(device, root_authority(MODEL, root_keys), CALIPTRA_2_1_2)
    device = Device.from_json(device.to_json())
    bundle = build_bundle(FMC, runtime, signing, svn=3)
    vault, core = boot(device, bundle)
    manifest = build_manifest(IMAGES, signing, svn=2)
    box, stranger = Caller(core, PL0_CALLER), Caller(core, PL1_CALLER)
    box.execute(mailbox.PopulateIdevEcc384Cert(device.idevid_ecc_certificate))
    box.execute(mailbox.PopulateIdevMldsa87Cert(device.idevid_mldsa_certificate))
    box.execute(mailbox.SetAuthManifest(manifest))
    server = Server(root_certificates(MODEL, root_keys), device, bundle, manifest, vault, core, box, stranger)
    authorize(server, FirmwareId.BOX)
    return server


def ask(channel: CustodyConnection, request: custody.Request[custody.Reply]) -> custody.Reply:
    """Ask something on a custody channel."""
    assert channel.receive(custody.encode_request(request), 0.0) == []
    (message,) = channel.outgoing()
    return custody.decode_reply(request, message)
