"""The refusal of a firmware bundle and of a SoC manifest: which rule was broken, and by which values."""

from endocarp.errors import Refused
from endocarp.wire.checks import Check, ManifestCheck

_PREFIXES = ("IMAGE_VERIFIER_ERR_", "RUNTIME_AUTH_MANIFEST_", "RUNTIME_", "FW_PROC_", "ENDOCARP_")


class CheckRefused(Refused):
    """Something signed broke a rule: `check` says which, `number` is what the mailbox answers for it.

    The reason has `found` and `expected`, the offending values, where they are given; octets as hexadecimal.
    """

    SUBJECT = ""
    """What was refused, in words."""

    def __init__(self, check: Check | ManifestCheck, found: object = None, expected: object = None) -> None:
        values = [
            f"{word} {value.hex() if isinstance(value, bytes) else value}"
            for word, value in (("found", found), ("expected", expected))
            if value is not None
        ]
        super().__init__(
            check.rule,
            ": ".join((self.SUBJECT, _words(check.name), *([", ".join(values)] if values else []))),
            f"this {self.SUBJECT} is not what was built and signed for this device; build it again with --rebuild",
        )
        self.check = check
        self.number = int(check)


class ImageRefused(CheckRefused):
    """A firmware bundle broke a rule of `Check`."""

    SUBJECT = "firmware bundle"


class ManifestRefused(CheckRefused):
    """A SoC manifest broke a rule of `ManifestCheck`."""

    SUBJECT = "SoC manifest"


def _words(name: str) -> str:
    prefix = next((one for one in _PREFIXES if name.startswith(one)), "")
    return name.removeprefix(prefix).lower().replace("_", " ")
