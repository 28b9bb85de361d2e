"""Where results are kept when nobody says."""

from __future__ import annotations

from pathlib import Path


def results_directory() -> Path:
    """benchmarks/results of the checkout that the package lies in, else of the current directory."""
    root = Path(__file__).resolve().parents[2]
    return (root if (root / "setup.py").is_file() else Path.cwd()) / "benchmarks" / "results"
