"""The refusal of a firmware bundle and of a SoC manifest: which rule was broken, and by which values."""

from endocarp.errors import Refused
from endocarp.wire.checks import Check, ManifestCheck

__all__ = ["Check", "ImageRefused", "ManifestCheck", "ManifestRefused"]


class ImageRefused(Refused):
    """A bundle broke a rule: `check` says which, `found` and `expected` are the offending values."""

    def __init__(self, check: Check, found: object = None, expected: object = None) -> None:
        super().__init__(
            check.rule, _told("firmware bundle", check, found, expected), _hint("firmware bundle")
        )
        self.check = check
        self.number = int(check)
        self.found = found
        self.expected = expected


class ManifestRefused(Refused):
    """A SoC manifest broke a rule; the fields are those of `ImageRefused`."""

    def __init__(self, check: ManifestCheck, found: object = None, expected: object = None) -> None:
        super().__init__(check.rule, _told("SoC manifest", check, found, expected), _hint("SoC manifest"))
        self.check = check
        self.number = int(check)
        self.found = found
        self.expected = expected


def _told(what: str, check: Check | ManifestCheck, found: object, expected: object) -> str:
    values = [
        f"{word} {value.hex() if isinstance(value, bytes) else value}"
        for word, value in (("found", found), ("expected", expected))
        if value is not None
    ]
    return ": ".join([what, _words(check), ", ".join(values)] if values else [what, _words(check)])


def _words(check: Check | ManifestCheck) -> str:
    for prefix in ("IMAGE_VERIFIER_ERR_", "RUNTIME_AUTH_MANIFEST_", "RUNTIME_", "FW_PROC_", "ENDOCARP_"):
        if check.name.startswith(prefix):
            return check.name.removeprefix(prefix).lower().replace("_", " ")
    return check.name.lower().replace("_", " ")


def _hint(what: str) -> str:
    return f"this {what} is not what was built and signed for this device; build it again with --rebuild"
