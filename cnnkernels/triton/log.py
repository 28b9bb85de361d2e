"""The names of the Triton kernels that were launched, while somebody wants to know."""

from __future__ import annotations

import threading

_lock = threading.Lock()
_launched: list[str] | None = None


def start() -> None:
    """Note launches from now on, by any thread."""
    global _launched
    with _lock:
        _launched = []


def note(name: str) -> None:
    if _launched is not None:
        with _lock:
            if _launched is not None:
                _launched.append(name)


def read() -> list[str]:
    """The names noted since :func:`start`, in order of launch."""
    with _lock:
        return list(_launched or ())


def stop() -> None:
    global _launched
    with _lock:
        _launched = None
