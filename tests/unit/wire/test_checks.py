"""The names and numbers of the rules, against the list that Caliptra's own source gives."""

import csv
from pathlib import Path

import pytest

from endocarp.wire.checks import Check, ManifestCheck

NUMBERS = Path("../shared/vectors/caliptra/error-codes.tsv")


@pytest.fixture(scope="module")
def caliptra() -> dict[int, str]:
    if not NUMBERS.exists():
        pytest.skip(f"the list of Caliptra's error numbers is not here: {NUMBERS}")
    with NUMBERS.open(newline="", encoding="utf-8") as rows:
        return {int(row[0], 16): row[1] for row in csv.reader(rows, delimiter="\t")}


@pytest.mark.parametrize("check", [*Check, *ManifestCheck], ids=lambda check: check.name)
def test_a_rule_has_the_name_and_the_number_of_caliptra(
    check: Check | ManifestCheck, caliptra: dict[int, str]
) -> None:
    if check.rule.startswith("ENDOCARP_"):
        assert int(check) not in caliptra
    else:
        assert caliptra[int(check)] == check.rule
