"""ML-DSA against NIST's ACVP vectors, through the one door to cryptography."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endocarp.crypto.keys import PublicKey, load
from endocarp.crypto.secret import Secret
from endocarp.wire.suites import Scheme, Suite

FOLDER = Path(__file__).parents[3] / "shared/vectors/acvp"
SUITES = {"ML-DSA-65": Suite.ML_DSA_65, "ML-DSA-87": Suite.ML_DSA_87}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no vectors at {FOLDER}")


def groups(name: str) -> Iterator[tuple[Suite, dict[str, Any]]]:
    """Give the test groups of our suites."""
    with gzip.open(FOLDER / name / "internalProjection.json.gz") as file:
        for group in json.load(file)["testGroups"]:
            if group["parameterSet"] in SUITES:
                yield SUITES[group["parameterSet"]], group


def test_seeds_give_the_public_keys_of_fips_204() -> None:
    checked = 0
    for suite, group in groups("ML-DSA-keyGen-FIPS204"):
        for case in group["tests"]:
            with Secret(bytes.fromhex(case["seed"])) as seed:
                assert load(suite, seed).public.raw.hex() == case["pk"].lower()
            checked += 1
    assert checked == 50


def test_signatures_over_mu_are_judged_as_nist_judges_them() -> None:
    verdicts = []
    for suite, group in groups("ML-DSA-sigVer-FIPS204"):
        if not group["externalMu"]:
            continue
        for case in group["tests"]:
            public = PublicKey.from_raw(suite, bytes.fromhex(case["pk"]))
            signature, mu = bytes.fromhex(case["signature"]), bytes.fromhex(case["mu"])
            assert public.verify(Scheme.ML_DSA_MU, signature, mu) is case["testPassed"], case["reason"]
            verdicts.append(case["testPassed"])
    assert len(verdicts) == 30
    assert {True, False} <= set(verdicts)
