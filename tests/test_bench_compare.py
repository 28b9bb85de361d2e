"""Comparisons: the strongest baseline, why there is no ratio, geometric means over fixed lists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cnnkernels.bench import compare
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.store import Row, Run


def make_run(number: int = 1, commit: str = "a" * 40, gpu: bool = True, **values: Any) -> Run:
    device = {"type": "cuda" if gpu else "cpu", "name": "Made-up GPU" if gpu else "Made-up CPU", "driver": "1.2"}
    device["slug"] = device["name"].lower().replace(" ", "-")
    fields: dict[str, Any] = {
        "id": f"2020010{number}T000000Z-00000{number}",
        "started": f"2020-01-0{number}T00:00:00+00:00",
        "device": device,
        "commit": commit,
        "dirty": False,
        "versions": {"torch": "2.99"},
        "library": "abcdef123456",
        "ceilings": {"bytes": 4e12, "f32": 6e13} if gpu else {},
        "limits": {"bytes": 5e12, "f32": 7e13} if gpu else {},
        "floor_us": 2.0,
        "settings": {"samples": 50},
        "command": "cnnkernels bench --suite own",
    }
    return Run(**(fields | values))


def make_row(provider: str = "cuda", us: float | None = 10.0, layer: str = "a", **values: Any) -> Row:
    problem = values.pop("problem", Layer("conv2d", 2, 8, 6, 6, 8, 3, 3, padding=(1, 1)))
    ours = provider in ("cuda", "triton", "emulator")
    fields: dict[str, Any] = {
        "metric": "time",
        "suite": "own",
        "net": "net",
        "layer": layer,
        "count": 1,
        "family": problem.family,
        "problem": problem.to_dict(),
        "what": str(problem),
        "name": "forward" if problem.is_pooling else "fprop",
        "dtype": "f32",
        "layout": "nchw",
        "data": "normal",
        "provider": provider,
        "role": "ours" if ours else "baseline",
        "status": "ok" if us is not None else "refused",
        "reason": "" if us is not None else "wrong at [0, 0]",
        "median_us": us,
        "p10_us": us and us * 0.9,
        "p90_us": us and us * 1.1,
        "samples": 50,
        "cache": "cold",
        "useful_flops": problem.useful_flops("fprop"),
        "useful_bytes": problem.useful_bytes("forward" if problem.is_pooling else "fprop", 4),
    }
    return Row(**(fields | values))


def one(*rows: Row) -> compare.Comparison:
    (comparison,) = compare.comparisons(rows)
    return comparison


def test_strongest_baseline_is_taken_over_layouts_and_torch_in_ours() -> None:
    found = one(
        make_row("cuda", 10.0),
        make_row("torch-eager", 30.0),
        make_row("torch-eager", 8.0, layout="channels_last"),
        make_row("torch-compile", 20.0),
        make_row("probe", 1.0, role="context"),
        make_row("linear", 0.5, layer="another"),
    )
    assert found.strongest is not None
    assert (found.strongest.provider, found.strongest.layout) == ("torch-eager", "channels_last")
    assert found.speedup == pytest.approx(0.8)
    assert found.to_torch == pytest.approx(3.0)
    assert (found.reason, found.weakened) == ("", "")


def test_refused_baseline_is_visible_and_unsupported_is_not_missed() -> None:
    found = one(
        make_row("cuda", 10.0),
        make_row("torch-eager", 30.0),
        make_row("torch-compile", None),
        make_row("linear", None, status="unsupported", reason="only 1x1"),
    )
    assert found.speedup == pytest.approx(3.0)
    assert found.weakened == "without torch-compile (nchw), refused: wrong at [0, 0]"


def test_baseline_that_was_not_asked_is_visible() -> None:
    found = one(make_row("cuda", 10.0), make_row("torch-eager", 30.0))
    assert found.weakened == "without torch-compile, which was not asked"
    pointwise = Layer("conv2d", 2, 8, 6, 6, 8)
    found = one(make_row("cuda", 10.0, problem=pointwise), make_row("torch-compile", 30.0, problem=pointwise))
    assert found.weakened == "without torch-eager, which was not asked; without torch-linear, which was not asked"
    latency = one(make_row("cuda", 10.0, metric="latency"), make_row("torch-eager", 30.0, metric="latency"))
    assert latency.weakened == ""


@pytest.mark.parametrize("status", ["refused", "failed", "unsteady", "skipped"])
def test_row_without_a_number_never_competes(status: str) -> None:
    """A time that does not count may well be in the row."""
    baseline = make_row("torch-compile", 1.0, status=status, reason="so")
    assert one(make_row("cuda", 10.0), make_row("torch-eager", 30.0), baseline).speedup == pytest.approx(3.0)
    ours = replace(baseline, provider="cuda", role="ours")
    assert one(ours, make_row("torch-eager", 30.0)).speedup is None


def test_reason_says_why_there_is_no_ratio() -> None:
    assert one(make_row("cuda", None), make_row("torch-eager", 3.0)).reason == "cuda (nchw) is refused: wrong at [0, 0]"
    assert one(make_row("cuda")).reason == "no baseline was measured"
    alone = one(make_row("cuda"), make_row("torch-eager", None))
    assert alone.reason == "no baseline has a number: torch-eager (nchw) refused"
    assert alone.speedup is None


def test_last_of_equal_identities_counts() -> None:
    assert one(make_row("cuda", 10.0), make_row("torch-eager", 5.0), make_row("cuda", 20.0)).speedup == 0.25


def rows_of(**times: tuple[float | None, float | None]) -> list[Row]:
    """Layers by name: our time and torch's."""
    pairs = [
        (make_row("cuda", ours, name), make_row("torch-eager", theirs, name)) for name, (ours, theirs) in times.items()
    ]
    return [row for pair in pairs for row in pair]


def test_geomeans_by_hand() -> None:
    rows = rows_of(a=(10.0, 40.0), b=(10.0, 10.0), c=(20.0, 10.0))
    pool = Layer("max_pool2d", 2, 8, 6, 6, R=2, S=2, stride=(2, 2))
    rows += [make_row("cuda", 1.0, problem=pool), make_row("torch-eager", 3.0, problem=pool)]
    dense, pooling, everything = compare.geomeans(compare.comparisons(rows), compare.cases(rows))
    assert (dense.group, pooling.group, everything.group) == ("dense", "pool", compare.ALL)
    assert dense.speedup == dense.to_torch == pytest.approx((4 * 1 * 0.5) ** (1 / 3))
    assert (dense.wanted, dense.measured, dense.wins, dense.losses) == (3, 3, 1, 1)
    assert everything.speedup == pytest.approx((4 * 1 * 0.5 * 3) ** (1 / 4))


def test_geomean_is_not_given_where_a_case_is_missing() -> None:
    rows = rows_of(a=(10.0, 40.0), b=(None, 10.0), c=(10.0, None))
    wanted = compare.cases([*rows, make_row(layer="never run")])
    (mean, _) = compare.geomeans(compare.comparisons(rows), wanted)
    assert mean.speedup is None
    assert mean.to_torch is None
    assert (mean.measured, mean.wanted, mean.wins) == (1, 4, 1)
    assert compare.geomeans([], {})[-1].speedup is None


def test_geomean_takes_our_fastest_row_and_counts_weak_opposition() -> None:
    rows = [*rows_of(a=(10.0, 20.0)), make_row("cuda", 5.0, layout="channels_last"), make_row("triton", None)]
    rows.append(make_row("torch-compile", None))
    (mean, _) = compare.geomeans(compare.comparisons(rows), compare.cases(rows))
    assert mean.speedup == pytest.approx(4.0)
    assert mean.to_torch is None, "torch was not measured in the layout of our fastest row"
    assert mean.weakened == 1
