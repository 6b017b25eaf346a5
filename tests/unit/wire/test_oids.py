"""The identifiers are those that the library writes for such keys."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from endocarp.crypto.keys import generate
from endocarp.wire import der, oids
from endocarp.wire.suites import Suite


@pytest.mark.parametrize(
    ("suite", "oid"),
    [
        (Suite.P256, oids.P256),
        (Suite.P384, oids.P384),
        (Suite.RSA2048, oids.RSA_ENCRYPTION),
        (Suite.ML_DSA_65, oids.ML_DSA_65),
        (Suite.ML_DSA_87, oids.ML_DSA_87),
    ],
)
def test_the_library_writes_the_same_identifier(suite: Suite, oid: str) -> None:
    key = generate(suite).public._key
    assert der.oid(oid) in key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
