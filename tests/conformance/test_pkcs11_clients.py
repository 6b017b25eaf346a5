"""Programs of others that speak PKCS#11, through the client's module of p11-kit, against the token and a vault.

The server is a socket, the token's core and the vault's cores. Debian 12's module speaks the oldest dialect; another
build of it is tried with its path in P11_KIT_CLIENT.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.simulators.vault import PARTITION, VaultProcess

from endocarp.cli.account import client_module
from endocarp.core import Ask, Event
from endocarp.crypto.secret import Secret
from endocarp.hsm.token import TokenConnection
from endocarp.shell.front import ApplicationLine
from endocarp.wire import hsm
from endocarp.wire.hsm import Hello
from endocarp.wire.p11 import choose_dialect

MODULE = os.environ.get("P11_KIT_CLIENT") or client_module()
ENGINE = next(iter(sorted(Path("/usr/lib").glob("*/engines-3/pkcs11.so"))), None)
TOKEN = f"pkcs11:token=Endocarp%20partition%20{PARTITION}"
PATIENCE = 30

pytestmark = pytest.mark.skipif(
    MODULE is None, reason="p11-kit-client.so is not installed: apt-get install p11-kit-modules"
)


class Front(VaultProcess):
    """A vault process behind a socket that speaks p11-kit's RPC."""

    def __init__(self, folder: Path, seal_key: Secret) -> None:
        super().__init__(seal_key)
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "p11-kit.sock"))
        self.listener.listen()
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "P11_KIT_SERVER_ADDRESS": f"unix:path={folder}/p11-kit.sock",
            "GNUTLS_PIN": self.pin,
            "OPENSSL_CONF": str(folder / "openssl.cnf"),
        }
        in_thread(self.accept)

    def accept(self) -> None:
        """Serve applications until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                application, _ = self.listener.accept()
                in_thread(self.speak, application)

    def speak(self, application: socket.socket) -> None:
        """Serve one application: the loop of the front, as small as it can be."""
        with application, self.connect() as vault:
            vault.send(Hello(hsm.MAGIC, hsm.VERSION).encode())
            vault.recv(hsm.MESSAGE_LIMIT)
            dialect = choose_dialect(application.recv(1)[0])
            application.sendall(bytes((dialect,)))
            line, token = ApplicationLine(application), TokenConnection(PARTITION, dialect)
            open_ = True
            while open_:
                events: list[Event] = token.receive(line.receive() or b"", 0.0)
                while events:
                    event = events.pop(0)
                    open_ = isinstance(event, Ask)
                    if isinstance(event, Ask):
                        vault.send(event.request)
                        events += token.resume(vault.recv(hsm.MESSAGE_LIMIT))
                for message in token.outgoing():
                    application.sendall(message)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join()

    def run(self, *command: str, exits: int = 0) -> str:
        """Run a program; return what it said. A path without folder is in the folder of this test."""
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=PATIENCE,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == exits, said
        return said

    def tool(self, *words: str, exits: int = 0) -> str:
        """Run pkcs11-tool."""
        return self.run("pkcs11-tool", "--module", str(MODULE), *words, exits=exits)

    def log_in(self, *words: str, exits: int = 0) -> str:
        """Run pkcs11-tool, logged in."""
        return self.tool("--login", "--pin", self.pin, *words, exits=exits)


def in_thread(work: object, *values: object) -> None:
    threading.Thread(target=work, args=values, daemon=True).start()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("p11")
    with Secret(bytes(range(32))) as key:
        front = Front(folder, key)
        (folder / "data").write_bytes(b"what is signed\n")
        front.run("openssl", "dgst", "-sha256", "-binary", "-out", "digest", "data")
        for number, kind in enumerate(("EC:prime256v1", "EC:secp384r1", "rsa:2048"), 1):
            label = kind.replace(":", "-")
            made = front.log_in("--keypairgen", "--key-type", kind, "--label", label, "--id", f"0{number}")
            assert "Key pair generated" in made
        yield front
        front.close()


P256, P384, RSA = "01", "02", "03"


# --- pkcs11-tool ------------------------------------------------------------------------------------------------


def test_pkcs11_tool_shows_the_token_and_its_mechanisms(front: Front) -> None:
    shown = front.tool("-L", "-M")
    assert f"token label        : Endocarp partition {PARTITION}" in shown
    assert "login required, rng, token initialized, PIN initialized" in shown
    for mechanism in (
        "ECDSA-KEY-PAIR-GEN",
        "RSA-PKCS-PSS",
        "SHA256-RSA-PKCS",
        "RSA-PKCS-OAEP",
        "SHA384, digest",
    ):
        assert mechanism in shown


def test_pkcs11_tool_shows_private_keys_only_after_login(front: Front) -> None:
    public, all_ = front.tool("-O"), front.log_in("-O")
    assert ("Public Key Object" in public, "Private Key Object" in public) == (True, False)
    assert "Private Key Object; EC" in all_
    assert "sensitive, always sensitive, never extractable, local" in all_
    assert "EC_PARAMS:  06082a8648ce3d030107" in all_


@pytest.mark.parametrize(
    ("key_id", "mechanism", "data", "check"),
    [
        (P256, ("ECDSA", "--signature-format", "openssl"), "digest", ("pkeyutl",)),
        (P384, ("ECDSA", "--signature-format", "openssl"), "digest", ("pkeyutl",)),
        (RSA, ("RSA-PKCS",), "data", ("pkeyutl",)),
        (RSA, ("SHA256-RSA-PKCS",), "data", ("dgst", "-sha256")),
        (RSA, ("SHA512-RSA-PKCS",), "data", ("dgst", "-sha512")),
        (
            RSA,
            ("RSA-PKCS-PSS", "--hash-algorithm", "SHA256"),
            "digest",
            ("dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"),
        ),
    ],
)
def test_pkcs11_tool_signs_and_openssl_agrees(
    front: Front, key_id: str, mechanism: tuple[str, ...], data: str, check: Sequence[str]
) -> None:
    front.log_in("--sign", "--id", key_id, "-m", *mechanism, "-i", data, "-o", "signature")
    # pkcs11-tool of OpenSC 0.23 cannot write out a key on P-384.
    url = f"{TOKEN};id=%{key_id};type=public"
    front.run("p11tool", "--provider", str(MODULE), "--export-pubkey", "--outfile", "public.pem", url)
    if check[0] == "dgst":
        said = front.run("openssl", *check, "-verify", "public.pem", "-signature", "signature", "data")
    else:
        said = front.run(
            *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem"),
            *("-sigfile", "signature", "-in", data),
        )
    assert "Verified" in said
    verified = front.log_in(
        "--verify", "--id", key_id, "-m", *mechanism, "-i", data, "--signature-file", "signature"
    )
    assert "Signature is valid" in verified


def test_pkcs11_tool_decrypts_what_openssl_encrypted(front: Front) -> None:
    front.tool("--read-object", "--type", "pubkey", "--id", RSA, "-o", "rsa.der")
    encrypt = (
        "openssl",
        "pkeyutl",
        "-encrypt",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        "rsa.der",
        "-in",
        "data",
    )
    front.run(*encrypt, "-out", "sealed")
    front.log_in("--decrypt", "--id", RSA, "-m", "RSA-PKCS", "-i", "sealed", "-o", "opened")
    assert (front.folder / "opened").read_bytes() == b"what is signed\n"
    oaep = ("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
    front.run(*encrypt, *oaep, "-out", "sealed")
    words = ("-m", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256")
    front.log_in("--decrypt", "--id", RSA, *words, "-i", "sealed", "-o", "opened")
    assert (front.folder / "opened").read_bytes() == b"what is signed\n"


def test_pkcs11_tool_hashes_and_draws_random_octets(front: Front) -> None:
    front.tool("--hash", "-m", "SHA256", "-i", "data", "-o", "hashed")
    assert (front.folder / "hashed").read_bytes() == (front.folder / "digest").read_bytes()
    front.tool("--generate-random", "100", "-o", "random")
    assert len(set((front.folder / "random").read_bytes())) > 30


def test_pkcs11_tool_renames_and_deletes_a_key(front: Front) -> None:
    front.log_in("--keypairgen", "--key-type", "EC:prime256v1", "--label", "short-lived", "--id", "77")
    front.log_in("--type", "privkey", "--id", "77", "--set-id", "78")
    assert "ID:         78" in front.log_in("-O", "--type", "privkey", "--label", "short-lived")
    front.log_in("--delete-object", "--type", "privkey", "--id", "78")
    front.log_in("--delete-object", "--type", "pubkey", "--id", "77")
    assert "short-lived" not in front.log_in("-O")


def test_pkcs11_tool_is_told_of_a_wrong_pin_and_of_what_cannot_be(front: Front) -> None:
    assert "CKR_PIN_INCORRECT" in front.tool("--login", "--pin", "00000000", "-O", exits=1)
    assert "user PIN count low" in front.tool("-L")
    front.log_in("-O")
    assert "user PIN count low" not in front.tool("-L")
    refused = front.log_in("--keypairgen", "--key-type", "rsa:1024", exits=1)
    assert "CKR_ATTRIBUTE_VALUE_INVALID" in refused
    refused = front.log_in("--keypairgen", "--key-type", "EC:secp521r1", exits=1)
    assert "CKR_CURVE_NOT_SUPPORTED" in refused or "0x140" in refused


def test_pkcs11_tool_changes_the_pin_and_back(front: Front) -> None:
    front.log_in("--change-pin", "--new-pin", "another PIN")
    assert "CKR_PIN_INCORRECT" in front.log_in("-O", exits=1)
    front.tool("--login", "--pin", "another PIN", "--change-pin", "--new-pin", front.pin)
    front.log_in("-O")


def test_pkcs11_tools_own_test_finds_nothing_wrong(front: Front) -> None:
    assert "No errors" in front.log_in("--test")


# --- others -----------------------------------------------------------------------------------------------------


def test_p11tool_lists_makes_tries_and_deletes_keys(front: Front) -> None:
    tool = ("p11tool", "--provider", str(MODULE))
    assert "Flags: RNG, Requires login" in front.run(*tool, "--list-tokens")
    for words in (("--generate-ecc", "--curve", "secp256r1"), ("--generate-rsa", "--bits", "2048")):
        front.run(*tool, "--login", *words, "--label", "gnutls", "--outfile", "made.pem", TOKEN)
        tried = front.run(*tool, "--login", "--test-sign", f"{TOKEN};object=gnutls;type=private")
        assert "Verifying against public key in the token... ok" in tried
        front.run(*tool, "--login", "--batch", "--delete", f"{TOKEN};object=gnutls")
    assert "gnutls" not in front.run(*tool, "--login", "--list-all", TOKEN)
    front.run(*tool, "--generate-random", "16", "--outfile", "random", TOKEN)
    assert len((front.folder / "random").read_bytes()) == 16


@pytest.mark.parametrize("label", ["EC-prime256v1", "EC-secp384r1", "rsa-2048"])
def test_openssl_signs_a_certificate_through_its_engine(front: Front, label: str) -> None:
    if ENGINE is None:
        pytest.skip("libengine-pkcs11-openssl is not installed")
    (front.folder / "openssl.cnf").write_text(
        "openssl_conf = all\n[all]\nengines = engines\n[engines]\npkcs11 = pkcs11\n"
        f"[pkcs11]\nengine_id = pkcs11\nMODULE_PATH = {MODULE}\nPIN = {front.pin}\ninit = 0\n"
        "[req]\ndistinguished_name = name\n[name]\n"
    )
    key = ("-engine", "pkcs11", "-keyform", "engine", "-key", f"{TOKEN};object={label};type=private")
    front.run("openssl", "req", *key, "-new", "-x509", "-sha256", "-subj", f"/CN={label}", "-out", "own.pem")
    assert "OK" in front.run("openssl", "verify", "-CAfile", "own.pem", "own.pem")


def test_ssh_keygen_shows_the_keys_for_logging_in_elsewhere(front: Front) -> None:
    shown = front.run("ssh-keygen", "-D", str(MODULE), "-e")
    for kind in ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-rsa"):
        assert kind in shown


PYTHON = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.exceptions import AttributeSensitive
from pkcs11.util.ec import encode_named_curve_parameters

module, pin = sys.argv[1:]
token = next(iter(pkcs11.lib(module).get_tokens()))
with token.open(rw=True, user_pin=pin) as session:
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
    public, private = parameters.generate_keypair(label="python", id=b"python")
    signature = private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    assert public.verify(bytes(32), signature, mechanism=Mechanism.ECDSA)
    assert not public.verify(bytes(31) + b"1", signature, mechanism=Mechanism.ECDSA)
    assert {key.label for key in session.get_objects({Attribute.ID: b"python"})} == {"python"}
    public, private = session.generate_keypair(KeyType.RSA, 2048, label="python", id=b"python")
    assert public.verify(b"in parts", private.sign([b"in ", b"parts"]))
    assert private.decrypt(public.encrypt(b"secret")) == b"secret"
    try:
        private[Attribute.PRIVATE_EXPONENT]
    except AttributeSensitive:
        print("as it should be")
with token.open() as session:
    assert not list(session.get_objects({Attribute.LABEL: "python"}))
"""


def test_python_pkcs11_signs_verifies_encrypts_and_leaves_nothing_behind(front: Front) -> None:
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    said = front.run(sys.executable, "-c", PYTHON, str(MODULE), front.pin)
    assert said == "as it should be\n"


def test_many_applications_at_once_do_not_disturb_each_other(front: Front) -> None:
    results: list[str] = []

    def sign(number: int) -> None:
        words = ("--sign", "--id", P256, "-m", "ECDSA", "-i", "digest", "-o", f"signature-{number}")
        results.append(front.log_in(*words))

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len({(front.folder / f"signature-{number}").read_bytes() for number in range(6)}) == 6
