"""The benchmark's gate: every way to cheat is planted and has to be refused; honest providers of every kind pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional
from cnnkernels.bench import machine, measuring, store
from cnnkernels.bench.latency import measure_latency
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import Case, Operands
from cnnkernels.bench.providers import Provider, providers

CPU = torch.device("cpu")
LAYER = Layer("conv2d", 3, 16, 14, 14, 12, 3, 3, padding=(1, 1))
POOL = Layer("max_pool2d", 3, 5, 12, 12, R=3, S=3, stride=(2, 2))
POINTWISE = Layer("conv2d", 512, 16, 14, 14, 12)
FEW = measuring.Settings(samples=4, seconds=0.01)

Forward = Callable[[Operands], Tensor]
Narrowing = Callable[[Tensor], Tensor]


def run_on(device: dict[str, object] | None = None, **fields: object) -> store.Run:
    defaults = {
        "id": "test", "started": store.now(), "device": device or machine.describe_device(CPU), "commit": "", "dirty": False,
        "versions": {}, "library": "", "ceilings": {}, "limits": {}, "floor_us": 0.0, "settings": {},
    }  # fmt: skip
    return store.Run(**(defaults | fields))  # type: ignore[arg-type]


def provider(forward: Forward, name: str = "planted", role: str = "ours") -> Provider:
    return Provider(name, role, lambda case, device, layout: None, lambda case: forward)


def measure(forward: Forward, layer: Layer = LAYER, dtype: torch.dtype = torch.float32, name: str = "") -> store.Row:
    case = Case(layer, name or layer.passes[0], dtype)
    blank = measuring.blank_row(case, FEW)
    (row,) = measuring.measure(case, blank, CPU, FEW, run_on(), [(provider(forward), "nchw")])
    return row


def refused(row: store.Row, *words: str) -> None:
    assert row.status == "refused", f"{row.status}: {row.reason}"
    assert row.median_us is None and row.p10_us is None and row.p90_us is None, "a red gate gives no number"
    for word in words:
        assert word in row.reason, row.reason


def honest(o: Operands, layer: Layer = LAYER) -> Tensor:
    return layer.forward(o.x, o.w, o.b)


def rounded(tensor: Tensor, bits: int) -> Tensor:
    """fp32 values with `bits` explicit bits of mantissa, rounded to nearest: tf32 has 10."""
    drop = 23 - bits
    return ((tensor.view(torch.int32) + (1 << (drop - 1))) & ~((1 << drop) - 1)).view(torch.float32)


def by_columns(o: Operands) -> Tensor:
    """The convolution as a matrix product: another order of summation."""
    assert o.w is not None
    columns = F.unfold(o.x, 3, padding=1)
    return (o.w.flatten(1) @ columns).view(3, 12, 14, 14)


def by_fourier(o: Operands) -> Tensor:
    """By fast Fourier transformation in the operands' precision: fewer operations, larger errors, legitimate in fp32."""
    assert o.w is not None
    size = (32, 32)
    image, taps = torch.fft.rfft2(F.pad(o.x, (1, 1, 1, 1)), s=size), torch.fft.rfft2(o.w.flip(2, 3), s=size)
    product = torch.einsum("nchw,kchw->nkhw", image, taps)
    return torch.fft.irfft2(product, s=size)[:, :, 2:16, 2:16].contiguous()


def in_half_sums(o: Operands) -> Tensor:
    """fp16 or bf16 products added up in that format, channel by channel and tap by tap."""
    assert o.w is not None
    padded = F.pad(o.x, (1, 1, 1, 1))
    total = torch.zeros(3, 12, 14, 14, dtype=o.x.dtype)
    for channel, row, column in itertools.product(range(16), range(3), range(3)):
        window = padded[:, channel : channel + 1, row : row + 14, column : column + 14]
        total = total + window * o.w[:, channel, row, column].view(1, -1, 1, 1)
    return total


@pytest.mark.parametrize("forward", [honest, by_columns, by_fourier])
def test_honest_providers_pass(forward: Forward) -> None:
    row = measure(forward)
    assert (row.status, row.reason) == ("ok", "")
    assert row.median_us is not None and row.p10_us is not None and row.p90_us is not None
    assert row.p10_us <= row.median_us <= row.p90_us
    assert row.samples >= 3 and row.error is not None and row.allowed is not None and row.error <= row.allowed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layer", [LAYER, POOL], ids=str)
def test_every_dtype_passes(layer: Layer, dtype: torch.dtype) -> None:
    # On a CPU torch adds half gradients of poolings in half, and on some CPUs halves of convolutions too: no provider of ours.
    def forward(o: Operands) -> Tensor:
        if layer.is_pooling:
            return layer.forward(o.x.to(torch.promote_types(dtype, torch.float32)), None).to(dtype)
        return functional.conv2d(o.x, o.w, padding=layer.padding, backend="emulator")

    for name in layer.passes:
        row = measure(forward, layer, dtype, name)
        assert row.status == "ok", row.reason


def test_a_result_remembered_by_its_operands_address_is_stale() -> None:
    memory: dict[int, Tensor] = {}

    def forward(o: Operands) -> Tensor:
        if o.x.data_ptr() not in memory:
            memory[o.x.data_ptr()] = honest(o)
        return memory[o.x.data_ptr()].clone()

    refused(measure(forward), "stale")


def test_a_result_that_is_given_out_again_and_overwritten() -> None:
    output = torch.empty(3, 12, 14, 14)
    refused(measure(lambda o: output.copy_(honest(o))), "an earlier result changed")


@pytest.mark.parametrize("calls", [3, 4, 5, 8])
def test_a_provider_that_stops_working_after_some_calls(calls: int) -> None:
    """Right as long as anyone looks: the gate after timing looks again, at what was timed."""
    count, last = 0, torch.empty(0)

    def forward(o: Operands) -> Tensor:
        nonlocal count, last
        count += 1
        if count <= calls:
            last = honest(o)
        return last.clone()

    refused(measure(forward))


def test_nothing_computed() -> None:
    refused(measure(lambda o: torch.empty(3, 12, 14, 14)), "wrong result")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_element_that_is_no_number(value: float) -> None:
    def forward(o: Operands) -> Tensor:
        result = honest(o)
        result[1, 2, 3, 4] = value
        return result

    refused(measure(forward), "[1, 2, 3, 4]")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_tap_forgotten_in_one_corner(dtype: torch.dtype) -> None:
    def forward(o: Operands) -> Tensor:
        assert o.w is not None
        result = honest(o)
        result[2, 5, 0, 0] -= (o.x[2, 3, 1, 1] * o.w[5, 3, 2, 2]).sign() * 0.1
        return result

    refused(measure(forward, dtype=dtype), "[2, 5, 0, 0]", "1 of")


@pytest.mark.parametrize("bits", [7, 10], ids=["bf16", "tf32"])
def test_fp32_computed_in_fewer_bits(bits: int) -> None:
    def forward(o: Operands) -> Tensor:
        assert o.w is not None
        return LAYER.forward(rounded(o.x, bits), rounded(o.w, bits))

    refused(measure(forward), "lower precision")


def test_fp32_with_one_operand_in_tf32() -> None:
    def forward(o: Operands) -> Tensor:
        return LAYER.forward(o.x, None if o.w is None else rounded(o.w, 10))

    refused(measure(forward), "lower precision")


def cut_off(tensor: Tensor, bits: int) -> Tensor:
    """fp32 values whose mantissa ends after `bits` explicit bits."""
    return (tensor.view(torch.int32) & ~((1 << (23 - bits)) - 1)).view(torch.float32)


class Narrowed(torch.autograd.Function):
    """A layer all of whose passes read their operands by `narrow`, when they run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, layer: Layer, narrow: Narrowing) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.layer, ctx.narrow = layer, narrow
        return layer.forward(narrow(x), narrow(w))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        (x, w), layer, dy = map(ctx.narrow, ctx.saved_tensors), ctx.layer, ctx.narrow(dy)
        dx = torch.nn.grad.conv2d_input(layer.input_shape, w, dy, padding=layer.padding)
        return dx, torch.nn.grad.conv2d_weight(x, layer.weight_shape, dy, padding=layer.padding), None, None


def in_tf32(narrow: Narrowing, layer: Layer, name: str) -> store.Row:
    """Pass `name` of `layer` before the gate for tf32, by someone who narrows the operands."""
    case = Case.named(layer, name, "tf32")
    entrant = provider(lambda o: Narrowed.apply(o.x, o.w, layer, narrow))
    (row,) = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), [(entrant, "nchw")])
    assert row.dtype == "tf32"
    return row


@pytest.mark.parametrize("name", LAYER.passes)
def test_tf32_may_be_rounded_or_cut_off_or_fp32(name: str) -> None:
    for narrow in (partial(rounded, bits=10), partial(cut_off, bits=10), torch.clone):
        row = in_tf32(narrow, LAYER, name)
        assert row.status == "ok", row.reason


@pytest.mark.parametrize("shorten", [rounded, cut_off])
@pytest.mark.parametrize(("layer", "name"), [*((LAYER, name) for name in LAYER.passes), (POINTWISE, "fprop")])
def test_tf32_is_not_bf16(layer: Layer, name: str, shorten: Callable[[Tensor, int], Tensor]) -> None:
    refused(in_tf32(partial(shorten, bits=7), layer, name))


def test_tf32_has_every_tap() -> None:
    def forward(o: Operands) -> Tensor:
        result = honest(o)
        result[2, 5, 0, 0] += 0.1
        return result

    case = Case.named(LAYER, "fprop", "tf32")
    (row,) = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), [(provider(forward), "nchw")])
    refused(row, "[2, 5, 0, 0]", "1 of")


def test_a_pooling_has_nothing_to_multiply_as_tf32() -> None:
    case = Case.named(POOL, "forward", "tf32")
    planted = [(provider(lambda o: rounded(POOL.forward(o.x), 10)), "nchw")]
    (row,) = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), planted)
    refused(row)


def test_the_emulator_is_not_timed_for_a_gpus_tf32() -> None:
    case = Case.named(LAYER, "fprop", "tf32")
    (emulator,) = (one for one in providers() if one.name == "emulator")
    (row,) = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), [(emulator, "nchw")])
    assert row.status == "unsupported" and "on a GPU alone" in row.reason


def test_fp64_computed_in_fp32() -> None:
    refused(
        measure(lambda o: honest(Operands(o.x.float(), o.w.float(), None, None, None)).double(), dtype=torch.float64)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_sums_instead_of_fp32_sums(dtype: torch.dtype) -> None:
    refused(measure(in_half_sums, dtype=dtype))


def test_bf16_computed_in_eight_bits() -> None:
    def forward(o: Operands) -> Tensor:
        assert o.w is not None
        x, w = (tensor.to(torch.float8_e4m3fn).float() for tensor in (o.x, o.w))
        return LAYER.forward(x, w).bfloat16()

    refused(measure(forward, dtype=torch.bfloat16))


def test_lower_precision_in_a_gradient() -> None:
    """wgrad sums over images and pixels: its bound is the widest of all."""
    in_ten_bits = partial(rounded, bits=10)
    refused(measure(lambda o: Narrowed.apply(o.x, o.w, LAYER, in_ten_bits), name="wgrad"), "lower precision")


def test_operands_written_to() -> None:
    def forward(o: Operands) -> Tensor:
        result = honest(o)
        o.x.relu_()
        return result

    refused(measure(forward), "operands")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.double(), "float64"),
        (lambda y: y[:, :-1], "shape"),
        (lambda y: y.contiguous(memory_format=torch.channels_last), "strides"),
        (lambda y: [y], "list"),
    ],
)
def test_results_of_another_form(change: Callable[[Tensor], object], words: str) -> None:
    row = measure(lambda o: change(honest(o)))  # type: ignore[arg-type,return-value]
    assert row.status in ("refused", "failed") and row.median_us is None
    assert words in row.reason or row.status == "failed"


def test_a_filter_transformed_once_and_kept() -> None:
    """Right for as long as the filter is what it was; what is timed leaves out the transformation."""

    def cheat(o: Operands) -> Tensor:
        assert o.w is not None
        key = (o.w.data_ptr(), o.w._version)
        return LAYER.forward(o.x, prepared.setdefault(key, o.w.clone()))

    prepared: dict[tuple[int, int], Tensor] = {}
    refused(measure(cheat), "after timing")


@pytest.mark.parametrize("name", ["dgrad", "wgrad"])
def test_a_backward_prepared_in_its_forward(name: str) -> None:
    """A forward is not timed: what it lays out anew for its backward would be free."""

    class Cheat(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
            ctx.prepared = x.clone(), w.clone()  # type: ignore[attr-defined]
            return LAYER.forward(x, w)

        @staticmethod
        def backward(ctx: object, dy: Tensor) -> tuple[Tensor, Tensor]:
            x, w = ctx.prepared  # type: ignore[attr-defined]
            return (
                torch.nn.grad.conv2d_input(LAYER.input_shape, w, dy, padding=1),
                torch.nn.grad.conv2d_weight(x, LAYER.weight_shape, dy, padding=1),
            )

    refused(measure(lambda o: Cheat.apply(o.x, o.w), name=name), "after timing")


def test_buffers_in_between_are_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last set of the round are right; which of the others is looked at, nobody knows beforehand."""
    made: list[int] = []
    real = measuring.make_operands

    def remember(*arguments: object) -> Operands:
        operands = real(*arguments)  # type: ignore[arg-type]
        made.append(operands.x.data_ptr())
        return operands

    monkeypatch.setattr(measuring, "make_operands", remember)
    monkeypatch.setattr("cnnkernels.bench.gate.secrets.randbelow", lambda sets: sets // 2)

    def forward(o: Operands) -> Tensor:
        between = len(made) > 2 and o.x.data_ptr() in made[1:-1]
        return torch.zeros(3, 12, 14, 14) if between else honest(o)

    refused(measure(forward), "after timing")


def test_a_baseline_may_answer_in_another_layout_and_that_is_said() -> None:
    """It has less to do for it, and its user pays later; ours has to answer in the layout of its operands."""
    case = Case(LAYER, "fprop", torch.float32)

    def forward(o: Operands) -> Tensor:
        return honest(o).contiguous(memory_format=torch.channels_last)

    entrants = [(provider(forward, role="baseline"), "nchw"), (provider(forward, role="ours"), "nchw")]
    baseline, ours = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), entrants)
    assert baseline.status == "ok" and "its result is not in nchw" in baseline.notices
    refused(ours, "strides")


def test_an_exception_is_told_and_the_others_go_on() -> None:
    def broken(o: Operands) -> Tensor:
        raise RuntimeError("no kernel image is available\nand a second line")

    case = Case(LAYER, "fprop", torch.float32)
    entrants = [(provider(broken, "broken"), "nchw"), (provider(honest, "honest"), "nchw")]
    rows = measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), entrants)
    assert [row.status for row in rows] == ["failed", "ok"]
    assert rows[0].reason == "RuntimeError: no kernel image is available" and rows[0].median_us is None


def test_a_maximum_off_by_one_place() -> None:
    """Pooled values are compared exactly: a neighbour's value is as plausible as any."""

    def forward(o: Operands) -> Tensor:
        result = POOL.forward(o.x)
        result[0, 0, 0, 0] = result[0, 0, 0, 0] * (1 - 1e-6)
        return result

    refused(measure(forward, POOL), "[0, 0, 0, 0]")


def test_latency_has_the_same_gate() -> None:
    case = Case(LAYER, "fprop", torch.float32)
    entrants = [(provider(lambda o: honest(o) * 1.01, "wrong"), "nchw"), (provider(honest), "nchw")]
    rows = measure_latency(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), entrants)
    assert [row.status for row in rows] == ["refused", "ok"]
    assert rows[0].median_us is None and rows[1].median_us is not None
    assert all(row.metric == "latency" for row in rows)


GPU = {"type": "cuda", "name": "some GPU", "slug": "some-gpu"}


def at(layer: Layer, median: float, run: store.Run, *notices: str, cache: str = "cold") -> store.Row:
    row = measuring.blank_row(Case(layer, "fprop", torch.float32), FEW)
    return measuring.against_roofline(measuring.replace(row, median_us=median, cache=cache), run, list(notices))


def test_faster_than_the_hardware_is_refused() -> None:
    row = measuring.blank_row(Case(POINTWISE, "fprop", torch.float32), FEW)
    by_traffic = run_on(GPU, limits={"bytes": 1e12, "f32": 1e18})
    least = row.useful_bytes / 1e6
    refused(at(POINTWISE, 0.99 * least, by_traffic), "impossible")
    assert at(POINTWISE, 1.01 * least, by_traffic).status == "ok"
    assert at(POINTWISE, 0.99 * least, by_traffic, cache="hot").status == "ok", "a cache is faster than DRAM"
    assert at(POINTWISE, 0.99 * least, by_traffic, measuring._WARM).status == "ok"
    by_arithmetic = run_on(GPU, limits={"bytes": 1e18, "f32": 1e12})
    least = row.useful_flops / 1e6
    refused(at(POINTWISE, 0.99 * least, by_arithmetic), "impossible")
    assert at(POINTWISE, 1.01 * least, by_arithmetic).status == "ok"
    # Winograd's transformation multiplies less often than the filter has taps.
    assert at(LAYER, 1e-3, by_arithmetic).status == "ok"


def test_a_share_of_the_roofline_is_told_only_where_it_says_something() -> None:
    ceilings = {"bytes": 1e12, "f32": 1e18}
    run = run_on(GPU, ceilings=ceilings)
    roofline = measuring.blank_row(Case(POINTWISE, "fprop", torch.float32), FEW).useful_bytes / 1e6
    assert roofline > 3
    half = at(POINTWISE, 2 * roofline, run)
    assert half.roofline_fraction == pytest.approx(0.5) and half.roofline_us == pytest.approx(roofline)
    above = at(POINTWISE, 0.9 * roofline, run)
    assert above.roofline_fraction is None and above.status == "ok" and "111%" in above.notices[0]
    near = at(POINTWISE, 2 * roofline, run_on(GPU, ceilings=ceilings, floor_us=roofline))
    assert near.roofline_fraction is None and "launch floor" in near.notices[0]
    assert at(POINTWISE, 2 * roofline, run, cache="hot").roofline_fraction is None
    assert at(POINTWISE.with_batch(1), 1.0, run).roofline_fraction is None, "below three microseconds it is the launch"
    assert at(POINTWISE, 1.0, run_on()).roofline_us is None, "no ceilings were measured"


def test_clocks_that_move_give_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.cycle([{"sm_mhz": 1980.0}, {"sm_mhz": 1800.0}])
    monkeypatch.setattr(measuring, "read_clocks", lambda device: next(readings))
    monkeypatch.setattr(measuring.time, "sleep", lambda seconds: None)
    row = measure(honest)
    assert row.status == "unsteady" and row.median_us is None and "9%" in row.reason


def test_unknown_names_of_providers_are_not_in_the_list() -> None:
    names = [one.name for one in providers()]
    assert names[:3] == ["cuda", "triton", "emulator"], "ours are every backend but auto and torch"
    assert len(names) == len(set(names))
    assert {one.role for one in providers()} == {"ours", "baseline"}


@pytest.mark.parametrize(
    "layer",
    [
        Layer("conv2d", 2, 6, 9, 11, 4, 3, 2, stride=(2, 1), padding=(1, 0), groups=2),
        Layer("conv2d", 2, 6, 7, 7, 8),
        Layer("conv_transpose2d", 2, 6, 5, 6, 4, 3, 3, stride=(2, 2), padding=(1, 1), output_padding=(1, 0)),
        Layer("avg_pool2d", 2, 4, 9, 9, R=3, S=2, stride=(2, 2), padding=(1, 1)),
        Layer("adaptive_avg_pool2d", 2, 4, 9, 9, output=(4, 3)),
        POOL,
    ],
    ids=str,
)
def test_every_provider_on_every_kind_of_layer(layer: Layer) -> None:
    """Whoever can run a case passes the gate in every layout; whoever cannot says why."""
    passes = layer.passes + (("fprop_relu", "fprop_add_relu") if layer.op == "conv2d" else ())
    entrants = [(one, layout) for one in providers() for layout in one.layouts if one.name != "torch-compile"]
    for name in passes:
        case = Case(layer, name, torch.float32)
        for row in measuring.measure(case, measuring.blank_row(case, FEW), CPU, FEW, run_on(), entrants):
            assert row.status in ("ok", "unsupported"), f"{row.provider} {row.layout} {name}: {row.reason}"
            assert row.reason if row.status == "unsupported" else row.median_us is not None
            if row.provider == "emulator" and row.status == "ok":
                assert row.kernels, "our kernels are in the row"
            if row.provider == "torch-eager":
                assert row.status == "ok"
