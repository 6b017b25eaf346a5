"""Programs that know nothing of Endocarp sign with its keys, and others check what they signed."""

import base64
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.process.server import PATIENCE, Server

from endocarp.cli.account import client_module
from endocarp.crypto.keys import PublicKey
from endocarp.errors import DeviceError
from endocarp.wire.hsm import Status
from endocarp.wire.suites import Scheme, Suite

ENGINE = next(iter(sorted(Path("/usr/lib").glob("*/engines-3/pkcs11.so"))), None)
MESSAGE = b"what the applications of this page sign"


def need(*programs: str) -> None:
    """Skip the test where one of these is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def module() -> str:
    """The client's module of p11-kit, which carries PKCS#11 to the server."""
    found = client_module()
    if found is None:
        pytest.skip("p11-kit-client.so is not installed: apt-get install p11-kit-modules")
    return str(found)


class Tool:
    """`pkcs11-tool` against one server."""

    def __init__(self, server: Server, module: str, folder: Path) -> None:
        self.server, self.module, self.folder = server, module, folder

    def run(self, *words: str, exits: int = 0) -> str:
        done = self.server.home.run_program("pkcs11-tool", "--module", self.module, *words, exits=exits)
        return done.stdout + done.stderr

    def log_in(self, *words: str) -> str:
        return self.run("--login", "--pin", self.server.home.pin, *words)

    def generate(self, kind: str) -> str:
        """Make a pair, and return its id: to sign, pkcs11-tool of OpenSC 0.23 takes no notice of a label."""
        key_id = os.urandom(4).hex()
        self.log_in("--keypairgen", "--key-type", kind, "--label", kind, "--id", key_id)
        return key_id

    def sign(self, key_id: str, mechanism: str, data: bytes, *options: str) -> Path:
        source, out = self.folder / "data", self.folder / "signature"
        source.write_bytes(data)
        words = ("--sign", "-m", mechanism, "--id", key_id, "-i", str(source), "-o", str(out))
        self.log_in(*words, *options)
        return out

    def public_key(self, *which: str) -> str:
        """Export a public key as PEM."""
        der, pem = self.folder / "public.der", self.folder / "public.pem"
        self.run("--read-object", "--type", "pubkey", *which, "-o", str(der))
        openssl("pkey", "-pubin", "-inform", "DER", "-in", str(der), "-out", str(pem))
        return str(pem)

    def public_point(self, key_id: str) -> str:
        """Write a public key as PEM, of the point that the native door tells: OpenSC 0.23 exports no P-384 key."""
        with self.server.session() as session:
            key = session.keys(key_id=bytes.fromhex(key_id))[0]
        der, pem = self.folder / "public.der", self.folder / "public.pem"
        der.write_bytes(PublicKey.from_raw(key.suite, key.public).spki())
        openssl("pkey", "-pubin", "-inform", "DER", "-in", str(der), "-out", str(pem))
        return str(pem)


@pytest.fixture
def tool(running: Server, module: str, tmp_path: Path) -> Tool:
    need("pkcs11-tool", "openssl")
    return Tool(running, module, tmp_path)


def openssl(*words: str) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- pkcs11-tool ----------------------------------------------------------------------------------------------


def test_pkcs11_tool_lists_the_token_of_the_partition(tool: Tool) -> None:
    assert re.search(r"token label +: Endocarp partition 0", tool.run("-L"))


def test_pkcs11_tool_sees_public_objects_without_login_and_private_ones_with_it(tool: Tool) -> None:
    assert "Private Key Object" not in tool.run("-O")
    assert "Public Key Object" in tool.run("-O")
    seen = tool.log_in("-O")
    assert "Private Key Object" in seen
    assert "never extractable" in seen


def check_ecdsa(tool: Tool, public: str, signature: Path, digest: bytes) -> None:
    """Let openssl look at a signature over this digest, and over another."""
    words = ("pkeyutl", "-verify", "-pubin", "-inkey", public, "-sigfile", str(signature), "-in")
    data = tool.folder / "data"
    data.write_bytes(digest)
    openssl(*words, str(data))
    data.write_bytes(os.urandom(len(digest)))
    with pytest.raises(AssertionError, match="Verification Failure"):
        openssl(*words, str(data))


def test_a_digest_that_pkcs11_tool_signs_with_p256_is_accepted_by_openssl(tool: Tool) -> None:
    key_id, digest = tool.generate("EC:prime256v1"), os.urandom(32)
    signature = tool.sign(key_id, "ECDSA", digest, "--signature-format", "openssl")
    check_ecdsa(tool, tool.public_key("--id", key_id), signature, digest)


def test_a_digest_that_pkcs11_tool_signs_with_p384_is_accepted_by_openssl(tool: Tool) -> None:
    key_id, digest = tool.generate("EC:secp384r1"), os.urandom(48)
    signature = tool.sign(key_id, "ECDSA", digest, "--signature-format", "openssl")
    check_ecdsa(tool, tool.public_point(key_id), signature, digest)


def test_what_pkcs11_tool_signs_with_rsa_is_accepted_by_openssl(tool: Tool) -> None:
    key_id = tool.generate("rsa:2048")
    public = tool.public_key("--id", key_id)
    signature = str(tool.sign(key_id, "SHA256-RSA-PKCS", MESSAGE))
    openssl("dgst", "-sha256", "-verify", public, "-signature", signature, str(tool.folder / "data"))
    signature = str(tool.sign(key_id, "RSA-PKCS", MESSAGE))
    recovered = openssl("pkeyutl", "-verifyrecover", "-pubin", "-inkey", public, "-in", signature)
    assert recovered.encode() == MESSAGE


def test_pkcs11_tool_is_told_that_a_pin_is_wrong_and_then_takes_the_right_one(tool: Tool) -> None:
    wrong = "11111111" if tool.server.home.pin != "11111111" else "22222222"
    assert "CKR_PIN_INCORRECT" in tool.run("--login", "--pin", wrong, "-O", exits=1)
    assert "Private Key Object" in tool.log_in("-O")


# --- p11tool, the engine of OpenSSL, SSH -------------------------------------------------------------------------


def test_p11tool_lists_the_public_keys_with_their_urls(running: Server, module: str) -> None:
    need("p11tool")
    listed = running.home.run_program("p11tool", "--provider", module, "--list-all").stdout
    assert "token=Endocarp%20partition%200;" in listed
    assert "Public key (EC/ECDSA-SECP256R1)" in listed


def test_openssl_signs_through_its_pkcs11_engine_and_checks_the_signature_itself(tool: Tool) -> None:
    if ENGINE is None:
        pytest.skip("the engine pkcs11 of OpenSSL is not installed: apt-get install libengine-pkcs11-openssl")
    (tool.folder / "data").write_bytes(MESSAGE)
    url = f"pkcs11:token=Endocarp%20partition%200;object=first;type=private;pin-value={tool.server.home.pin}"
    environment = tool.server.home.environment | {"PKCS11_MODULE_PATH": tool.module}
    signature, data = str(tool.folder / "engine"), str(tool.folder / "data")
    sign = [
        "openssl",
        "dgst",
        "-engine",
        "pkcs11",
        "-keyform",
        "engine",
        "-sign",
        url,
        "-sha256",
        "-out",
        signature,
    ]
    done = subprocess.run(
        [*sign, data], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    openssl("dgst", "-sha256", "-verify", tool.public_key("--label", "first"), "-signature", signature, data)


def need_ssh(*programs: str) -> None:
    """Skip the test where SSH is not installed, or would not work for a user that has no name."""
    need(*programs)
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        pytest.skip("programs of SSH want a user that /etc/passwd knows")


def ssh_keys(server: Server, module: str) -> dict[str, str]:
    """Return the public keys that SSH finds on the token, by their labels."""
    listed = server.home.run_program("ssh-keygen", "-D", module).stdout
    return {line.split(" ", 2)[2]: line for line in listed.splitlines()}


def test_ssh_keygen_reads_the_public_keys_of_the_token(running: Server, module: str) -> None:
    need_ssh("ssh-keygen")
    with running.session() as session:
        point = session.find(label="first").public
    key = ssh_keys(running, module)["first"]
    assert key.startswith("ecdsa-sha2-nistp256 ")
    assert base64.b64decode(key.split()[1]).endswith(point)


@contextmanager
def ssh_agent(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run an agent of SSH, which loads the module itself, and give the environment in which it is found."""
    path = str(folder / "agent")
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout is not None
    try:
        assert path in agent.stdout.readline()
        yield environment | {"SSH_AUTH_SOCK": path}
    finally:
        agent.terminate()
        agent.wait()
        agent.stdout.close()


def test_the_agent_of_ssh_signs_with_a_key_of_the_token(running: Server, module: str, tmp_path: Path) -> None:
    need_ssh("ssh-agent", "ssh-add", "ssh-keygen")
    asks, public, data = tmp_path / "askpass", tmp_path / "first.pub", tmp_path / "data"
    asks.write_text(f"#!/bin/sh\necho {running.home.pin}\n")
    asks.chmod(0o700)
    public.write_text(ssh_keys(running, module)["first"])
    (tmp_path / "signers").write_text(f"me {public.read_text()}")
    data.write_bytes(MESSAGE)
    environment = running.home.environment | {"SSH_ASKPASS": str(asks), "SSH_ASKPASS_REQUIRE": "force"}
    sign = ["ssh-keygen", "-Y", "sign", "-f", str(public), "-n", "file", str(data)]
    with ssh_agent(tmp_path, environment) as agent:
        for words in (["ssh-add", "-s", module], sign):
            done = subprocess.run(
                words, env=agent, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert done.returncode == 0, done.stderr
    verify = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "me", "-n", "file"]
    for octets, good in ((MESSAGE, True), (MESSAGE + b".", False)):
        found = subprocess.run([*verify, "-s", f"{data}.sig"], input=octets, capture_output=True, check=False)
        assert (found.returncode == 0) is good, found.stderr


# --- the native door --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "scheme"),
    [
        (Suite.P256, Scheme.ECDSA_SHA256),
        (Suite.P384, Scheme.ECDSA_SHA384),
        (Suite.RSA2048, Scheme.RSA_PSS_SHA256),
        (Suite.RSA3072, Scheme.RSA_PSS_SHA384),
        (Suite.ML_DSA_65, Scheme.ML_DSA),
    ],
)
def test_a_signature_from_the_native_door_is_one_of_the_public_key(
    running: Server, suite: Suite, scheme: Scheme
) -> None:
    with running.session() as session:
        key = session.generate(suite, label=suite.name, durable=False)
        signature = key.sign(MESSAGE)
        assert key.verify(signature, MESSAGE)
        assert not key.verify(signature, MESSAGE + b".")
        assert PublicKey.from_raw(suite, key.public).verify(scheme, signature, MESSAGE)


def test_what_an_aes_key_encrypts_it_decrypts_and_nothing_that_was_changed(running: Server) -> None:
    with running.session() as session:
        key = session.generate(Suite.AES256, durable=False)
        sealed = key.encrypt(MESSAGE, associated=b"page")
        assert key.decrypt(sealed, associated=b"page") == MESSAGE
        with pytest.raises(DeviceError) as caught:
            key.decrypt(sealed, associated=b"another")
        assert caught.value.number == Status.CIPHERTEXT_INVALID


def test_a_key_made_at_one_door_is_seen_at_the_other(tool: Tool) -> None:
    label = f"both-{time.monotonic_ns()}"
    with tool.server.session() as session:
        session.generate(Suite.P256, label=label)
        assert label in tool.run("-O")
        session.find(label=label).destroy()
    assert label not in tool.run("-O")


def test_without_login_the_native_door_shows_no_private_key(running: Server) -> None:
    with running.connect() as partition, partition.session() as session:
        assert session.keys() == []
        with pytest.raises(DeviceError) as caught:
            session.generate(Suite.P256)
        assert caught.value.number == Status.NOT_LOGGED_IN
