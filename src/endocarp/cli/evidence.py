"""`endocarp evidence` and `endocarp verify`: the two sides of an attestation."""


def evidence() -> None:
    """Get evidence."""


def verify() -> None:
    """Verify."""
