"""Backend "torch": torch's own operators, called by cnnkernels.functional with the caller's arguments unchanged."""

from __future__ import annotations


def unavailable() -> str | None:
    """None: torch is always there."""
    return None
