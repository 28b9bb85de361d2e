"""The tests' own tools: each oracle has to fail on what it is there to catch, and `verify` on every kind of bad kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels.nn
from cnnkernels import functional, ops
from cnnkernels.geometry import looks_channels_last
from cnnkernels.models import LeNet5, MNISTNet
from cnnkernels.testing import (
    CONV2D_PROBLEMS,
    POOL2D_PROBLEMS,
    Conv2dProblem,
    Pool2dProblem,
    assert_close_to_fp64,
    assert_exact,
    assert_gradients,
    assert_like_torch,
    assert_memory_format,
    assert_same_bits,
    emulator,
)
from cnnkernels.testing.cases import make_case
from cnnkernels.testing.layers import check_layers
from cnnkernels.testing.operands import Layout, is_channels_last, lay_out, make_operand
from cnnkernels.testing.references import (
    conv2d_pass,
    max_pool2d_with_indices,
    pool2d_pass,
)
from cnnkernels.testing.verify import Order, Record, Selection, count_cases, kernel_passes, verify

NUMERIC = [problem for problem in CONV2D_PROBLEMS if problem.padding != "same" and problem.padding_mode == "zeros"]
GATHER = Selection(passes=("fprop",), dtypes=("f32",), kernel="conv2d_gather_128x64x8_f32", quick=True)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_fp64_oracle_takes_rounding_and_no_missing_term(dtype: torch.dtype) -> None:
    problem = Conv2dProblem("", 2, 20, 9, 9, 4, 3, 3)
    case = make_case(problem, "fprop", dtype)
    reference = case.reference
    arguments = (reference.fp64, reference.reduction_length, reference.torch_result)
    assert_close_to_fp64(reference.torch_result, *arguments, magnitude=reference.wander)
    wrong = reference.torch_result.clone()
    typical_term = reference.wander[1, 2, 3, 4] / reference.reduction_length**0.5
    wrong[1, 2, 3, 4] = (reference.fp64[1, 2, 3, 4] + typical_term).to(dtype)
    if wrong[1, 2, 3, 4] - reference.torch_result[1, 2, 3, 4] == 0:
        pytest.fail("the planted error vanished in the rounding of the dtype: choose a longer step")
    with pytest.raises(AssertionError, match=r"at \[1, 2, 3, 4\].* 1 of 392 results are off"):
        assert_close_to_fp64(wrong, *arguments, magnitude=reference.wander)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("share", "passes"), [(0.9, True), (1.1, False)])
def test_fp64_oracle_allows_what_its_formula_says(dtype: torch.dtype, share: float, passes: bool) -> None:
    rounding = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    accumulating = {torch.float64: 2.0**-53}.get(dtype, 2.0**-24)
    reference = torch.full((3,), 1.5, dtype=torch.float64)
    # So large a magnitude that the allowed error is many units in the last place of every dtype.
    magnitude = torch.full((3,), 1e7, dtype=torch.float64)
    allowed = 6 * 100 * accumulating * 1e7 + rounding[dtype] * 1.5
    actual = (reference + torch.tensor([0.0, share * allowed, 0.0])).to(dtype)
    if passes:
        assert_close_to_fp64(actual, reference, 9999, magnitude=magnitude)
    else:
        with pytest.raises(AssertionError, match=r"at \[1\]"):
            assert_close_to_fp64(actual, reference, 9999, magnitude=magnitude)


def test_fp64_oracle_allows_twice_torchs_error_and_no_more() -> None:
    reference = torch.ones(3, dtype=torch.float64)
    own = torch.tensor([1.0, 1.01, 1.0])
    assert_close_to_fp64(torch.tensor([1.0, 1.0, 1.019]), reference, 1, own)
    with pytest.raises(AssertionError, match=r"at \[2\]"):
        assert_close_to_fp64(torch.tensor([1.0, 1.0, 1.021]), reference, 1, own)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_fp64_oracle_wants_nan_and_infinity_in_the_same_places(bad: float) -> None:
    finite = torch.ones(2, 2, dtype=torch.float64)
    strange = finite.clone()
    strange[1, 0] = bad
    assert_close_to_fp64(strange.float(), strange, 1)
    with pytest.raises(AssertionError, match=r"at \[1, 0\]"):
        assert_close_to_fp64(strange.float(), finite, 1)
    with pytest.raises(AssertionError, match=r"at \[1, 0\]"):
        assert_close_to_fp64(finite.float(), strange, 1)


def test_fp64_oracle_expects_overflow_where_the_dtype_overflows() -> None:
    reference = torch.tensor([1e5], dtype=torch.float64)
    assert_close_to_fp64(torch.tensor([torch.inf], dtype=torch.float16), reference, 1)
    with pytest.raises(AssertionError):
        assert_close_to_fp64(torch.tensor([65504.0], dtype=torch.float16), reference, 1)


def test_oracles_look_at_dtype_shape_strides_and_bits() -> None:
    image = torch.randn(2, 3, 4, 5)
    with pytest.raises(AssertionError, match="shape"):
        assert_close_to_fp64(image, image.double()[:1], 1)
    with pytest.raises(AssertionError, match="torch gives"):
        assert_close_to_fp64(image, image.double(), 1, image.half())
    with pytest.raises(AssertionError, match="dtype"):
        assert_exact(image, image.double())
    with pytest.raises(AssertionError, match="shape"):
        assert_exact(image, image[:1])
    with pytest.raises(AssertionError, match="strides"):
        assert_like_torch(image, image.contiguous(memory_format=torch.channels_last))
    with pytest.raises(AssertionError, match="strides"):
        assert_memory_format(image, channels_last=True)
    zero = torch.zeros(2)
    assert_exact(zero, -zero)
    with pytest.raises(AssertionError):
        assert_same_bits(zero, -zero)


def test_exact_oracle_sees_one_unit_in_the_last_place_and_equal_nan() -> None:
    expected = torch.tensor([1.0, torch.nan, 3.0])
    assert_exact(expected.clone(), expected)
    nearly = expected.clone()
    nearly[2] = torch.nextafter(nearly[2], torch.tensor(4.0))
    with pytest.raises(AssertionError, match=r"at \[2\].*1 of 3"):
        assert_exact(nearly, expected)
    with pytest.raises(AssertionError, match=r"at \[1\]"):
        assert_exact(torch.tensor([1.0, 2.0, 3.0]), expected)


def test_gradient_oracle_sees_a_wrong_derivative() -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert_gradients(torch.square, [x])
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        assert_gradients(lambda x: x * x.detach(), [x])


def test_problems_are_distinct() -> None:
    for problems in (CONV2D_PROBLEMS, POOL2D_PROBLEMS):
        assert len({str(problem) for problem in problems}) == len(problems)


@pytest.mark.parametrize("problem", NUMERIC, ids=str)
def test_convolution_references_are_torchs_functions(problem: Conv2dProblem) -> None:
    shapes = problem.shapes
    x, w, y = (make_operand(shapes[r], torch.float64, generator()) for r in ("input", "weight", "output"))
    geometry = (problem.stride, problem.padding, problem.dilation, problem.groups)
    expected = F.conv2d(x, w, None, *geometry)
    assert_close_to_fp64(conv2d_pass(problem, "fprop", {"input": x, "weight": w}), expected, 1)
    stride, padding, dilation, groups = geometry
    if all(extra < max(s, d) for extra, s, d in zip(problem.output_padding, stride, dilation, strict=True)):
        back = F.conv_transpose2d(y, w, None, stride, padding, problem.output_padding, groups, dilation)
        assert_close_to_fp64(conv2d_pass(problem, "dgrad", {"grad_output": y, "weight": w}), back, 1)
    wgrad = torch.nn.grad.conv2d_weight(x, w.shape, y, *geometry)
    found = conv2d_pass(problem, "wgrad", {"grad_output": y, "input": x})
    assert_close_to_fp64(found, wgrad, y.numel() // max(1, y.shape[1]))


@pytest.mark.parametrize("problem", [p for p in POOL2D_PROBLEMS if "max" in p.kinds], ids=str)
def test_max_pooling_references_are_torchs_gradients(problem: Pool2dProblem) -> None:
    x = make_operand((problem.N, problem.C, problem.H, problem.W), torch.float64, generator(), values=problem.values)
    x.requires_grad_()
    output, indices = max_pool2d_with_indices(problem, x)
    y = make_operand(output.shape, torch.float64, generator())
    (expected,) = torch.autograd.grad(output, x, y)
    found = pool2d_pass(problem, "max_backward", {"grad_output": y, "indices": indices})
    assert_close_to_fp64(found, expected, problem.overlap)
    assert_exact(pool2d_pass(problem, "max_gather", {"input": x.detach(), "indices": indices}), output.detach())


def test_operands_lie_as_asked_and_slices_are_surrounded_by_nan() -> None:
    shape = (3, 4, 5, 6)
    made = {
        layout: make_operand(shape, torch.float32, generator(), layout=layout)
        for layout in ("contiguous", "channels_last", "permuted", "sliced")
    }
    for tensor in made.values():
        assert_exact(tensor, made["contiguous"])
    assert made["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert made["permuted"].stride() == (1, 3, 12, 60)
    storage = torch.empty(0).set_(made["sliced"].untyped_storage())
    assert int(storage.isnan().sum()) == storage.numel() - 360
    assert make_operand(shape, torch.float32, generator(), layout="expanded").stride()[0] == 0


@pytest.mark.parametrize(
    ("layout", "strides", "start", "left_out"),
    [
        ("channels_last_sliced_start", (120, 1, 24, 4), 1, 1),
        ("channels_last_sliced_pixels", (150, 1, 30, 5), 0, 90),
        ("channels_last_sliced_rows", (125, 1, 25, 4), 0, 15),
        ("channels_last_sliced_images", (121, 1, 24, 4), 0, 3),
    ],
)
def test_channels_last_slices_leave_out_nan(
    layout: Layout, strides: tuple[int, ...], start: int, left_out: int
) -> None:
    shape = (3, 4, 5, 6)
    tensor = make_operand(shape, torch.float32, generator(), layout=layout)
    assert_exact(tensor, make_operand(shape, torch.float32, generator()))
    assert (tensor.stride(), tensor.storage_offset()) == (strides, start)
    storage = torch.empty(0).set_(tensor.untyped_storage())
    assert storage.numel() == tensor.numel() + left_out
    assert int(storage.isnan().sum()) == left_out
    indices = torch.arange(tensor.numel()).reshape(shape)
    assert torch.equal(lay_out(indices, layout), indices)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_layouts_are_channels_last_where_torch_says_so(layout: Layout) -> None:
    tensor = make_operand((3, 4, 5, 6), torch.float32, generator(), layout=layout)
    assert is_channels_last(layout) == looks_channels_last(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["fprop", "wgrad"])
def test_integer_cases_are_exact_in_any_order(dtype: torch.dtype, name: str) -> None:
    problem = Conv2dProblem("", 9, 20, 21, 21, 4, 3, 3)
    case = make_case(problem, name, dtype, "integers")
    assert case.exact
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    assert float(case.reference.absolute_sum.max()) < 1 / torch.finfo(accumulator).eps
    assert_exact(case.reference.fp64.to(dtype).double(), case.reference.fp64)
    assert int((case.reference.fp64 != 0).sum()) > case.reference.fp64.numel() // 2


def test_emulator_switches_come_back() -> None:
    from cnnkernels import _C

    before = _C.emulator_config()
    with emulator(threads=1, schedule="random", seed=3):
        assert _C.emulator_config() == before | {"threads": 1, "schedule": "random", "seed": 3}
        with emulator(schedule="reverse"):
            assert _C.emulator_config() == before | {"threads": 1, "schedule": "reverse", "seed": 3}
    assert _C.emulator_config() == before


def test_every_kernel_passes_on_the_first_problem_of_each_group() -> None:
    # bf16's below, under several schedules; fp16's are those with other conversions, which tests/test_random_problems.py has.
    selection = Selection(dtypes=("f64", "f32", "tf32"), quick=True)
    records = verify(selection)
    assert len(records) == len(kernel_passes(selection))
    assert {record.subject.kernel: record.failures for record in records if not record.passed} == {}
    assert all(record.exact_runs for record in records)


def test_what_the_plan_takes_passes_on_problems_of_every_family() -> None:
    some = tuple(problem for problem in Selection().problems if isinstance(problem, Conv2dProblem))[::6]
    records = verify(Selection(dtypes=("bf16",), planned=True, problems=some))
    assert {record.subject.name for record in records} >= {"fprop", "dgrad", "wgrad", "fused"}
    for record in records:
        if record.subject.name in ("fprop", "dgrad", "wgrad", "fused"):
            assert record.passed, record.failures[:3]
            assert record.problems >= len(some) // 2


def test_every_kernel_of_bf16_gives_the_same_bits_under_every_schedule() -> None:
    # Of `cnnkernels verify --schedules`'s six orders the one that differs most from the first. tests/test_check.py has another one, and
    # fp32's kernels.
    orders = (Order("random", threads=2),)
    selection = Selection(dtypes=("bf16",), quick=True, schedules=True, orders=orders)
    records = verify(selection)
    assert len(records) == len(kernel_passes(selection))
    assert {record.subject.kernel: record.failures for record in records if not record.passed} == {}
    assert all(record.exact_runs for record in records)


def sabotaged(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]) -> Record:
    """What verify says of a kernel whose results go through `spoil`."""
    original = ops.conv2d_fprop
    monkeypatch.setattr(ops, "conv2d_fprop", lambda *arguments, **options: spoil(original(*arguments, **options)))
    (record,) = verify(GATHER)
    return record


def shifted(output: Tensor) -> Tensor:
    output[..., -1:, -1:] += 1e-3
    return output


def unwritten(output: Tensor) -> Tensor:
    output[..., -1:, -1:] = torch.empty(1)
    return output


def other_layout(output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("spoil", "message"), [(shifted, "off by"), (unwritten, "nan, expected"), (other_layout, "strides")]
)
def test_verify_catches(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    record = sabotaged(monkeypatch, spoil)
    assert not record.passed
    assert any(message in failure for failure in record.failures)


def test_verify_catches_results_that_depend_on_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnkernels import _C

    def spoil(*arguments: Any, **options: Any) -> Tensor:
        output = original(*arguments, **options)
        return output.nextafter(output + 1) if _C.emulator_config()["schedule"] == "random" else output

    original = ops.conv2d_fprop
    monkeypatch.setattr(ops, "conv2d_fprop", spoil)
    (record,) = verify(Selection(**(vars(GATHER) | {"schedules": True})))
    assert any("other bits under schedule random" in failure for failure in record.failures)


def test_verify_notes_refusals_and_fails_a_kernel_that_nothing_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Tensor:
        raise RuntimeError("kernel 'conv2d_gather_128x64x8_f32' cannot run fprop f32 N1 ...: it is Sunday")

    monkeypatch.setattr(ops, "conv2d_fprop", refuse)
    (record,) = verify(GATHER)
    assert not record.passed
    assert not record.failures
    # No problem was left untried, since it ran none.
    assert len(record.refused) == count_cases(Selection(**(vars(GATHER) | {"quick": False})))
    assert set(record.refused.values()) == {"it is Sunday"}


def test_verify_sees_that_another_kernel_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ops.conv2d_fprop
    monkeypatch.setattr(ops, "conv2d_fprop", lambda *arguments, **options: original(*arguments[:-1], "", **options))
    (record,) = verify(GATHER)
    assert any("forced, but what ran was" in failure for failure in record.failures)


@pytest.mark.parametrize("model_type", [LeNet5, MNISTNet])
def test_layers_of_the_models_run_on_our_kernels(model_type: type[LeNet5], place: Any) -> None:
    model = model_type(backend=place.backend).to(place.device)
    images = torch.randn(8, 1, model.input_size, model.input_size, device=place.device)
    report = check_layers(model, images, torch.arange(8, device=place.device))
    assert report.passed, report
    ran = [(row.layer, row.name) for row in report.rows if row.kernels]
    conv = ["fprop", "dgrad", "wgrad", "bias grad"]
    assert ran == [
        *(("conv1", name) for name in conv if name != "dgrad"),
        *(("pool1", name) for name in ("forward", "backward")),
        *(("conv2", name) for name in conv),
        *(("pool2", name) for name in ("forward", "backward")),
    ]
    assert all(parameter.grad is None for parameter in model.parameters())


class Mixed(nn.Module):
    """One layer of ours, and what should not go unnoticed beside it."""

    def __init__(self, function: Callable[[Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.layer(images)).mean((2, 3))


def test_layer_check_sees_torchs_operators() -> None:
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    ours = cnnkernels.nn.Conv2d(3, 4, 3)
    ours.backend = "emulator"
    assert check_layers(Mixed(torch.tanh, ours), images, labels).passed
    hidden = check_layers(Mixed(lambda maps: F.max_pool2d(maps, 2), ours), images, labels)
    assert any("aten.max_pool2d_with_indices_backward" in problem for problem in hidden.problems)
    plain = check_layers(Mixed(torch.tanh, nn.Conv2d(3, 4, 3)), images, labels)
    assert {row.problem for row in plain.rows if row.comparison} == {"no kernel of ours ran"}
    extra = check_layers(Mixed(lambda maps: functional.avg_pool2d(maps, 2, backend="emulator"), ours), images, labels)
    assert any("launches are not those of its layers" in problem for problem in extra.problems)


def test_layer_check_sees_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnkernels import ops

    original = ops.conv2d_wgrad
    monkeypatch.setattr(ops, "conv2d_wgrad", lambda *arguments: original(*arguments) * 1.001)
    report = check_layers(LeNet5(backend="emulator"), torch.randn(4, 1, 32, 32), torch.arange(4))
    assert [(row.layer, row.name) for row in report.rows if not row.passed] == [("conv1", "wgrad"), ("conv2", "wgrad")]


def test_the_check_of_layers_leaves_buffers_as_they_were() -> None:
    model = nn.Sequential(cnnkernels.nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].backend = "emulator"
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    check_layers(model, torch.randn(4, 1, 6, 6), torch.arange(4))
    assert before.keys() == dict(model.named_buffers()).keys()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
