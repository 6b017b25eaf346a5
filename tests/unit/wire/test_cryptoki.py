import pytest

from endocarp.wire import cryptoki
from endocarp.wire.cryptoki import CKA, CKG_MGF1, CKM, CKR

OPEN = [cryptoki.CKR, cryptoki.CKK, cryptoki.CKP, cryptoki.CKU, cryptoki.CKS, CKA, CKM]


@pytest.mark.parametrize("numbers", OPEN)
def test_a_number_without_a_name_survives(numbers: type[CKR]) -> None:
    assert numbers(0x8000_1234) == 0x8000_1234
    assert "UNKNOWN" in numbers(0x8000_1234).name


@pytest.mark.parametrize("numbers", OPEN)
def test_no_number_has_two_names(numbers: type[CKR]) -> None:
    assert len(numbers.__members__) == len(list(numbers))


def test_numbers_are_those_of_the_standard() -> None:
    assert (CKR.CRYPTOKI_NOT_INITIALIZED, CKR.BUFFER_TOO_SMALL, CKR.USER_NOT_LOGGED_IN) == (
        0x190,
        0x150,
        0x101,
    )
    assert (CKA.EC_POINT, CKA.ALWAYS_AUTHENTICATE, CKA.PARAMETER_SET) == (0x181, 0x202, 0x61D)
    assert (CKM.ECDSA, CKM.AES_GCM, CKM.SHA256_RSA_PKCS_PSS) == (0x1041, 0x1087, 0x43)


def test_mask_generation_functions_are_told_apart_from_hashes() -> None:
    assert CKG_MGF1[2] is CKM.SHA256
    assert CKM.SHA256 not in CKG_MGF1
