// The pooling operators: validate, state the problem, plan, allocate, launch.
#include <tuple>

#include "bindings/tensor.h"
#include "pool2d/plan.h"

namespace cnn::bindings {
namespace {

using pool2d::Op;
using pool2d::Problem;

void set_geometry(Problem& problem, const Sizes& kernel_size, const Sizes& stride, const Sizes& padding) {
  require_pair(kernel_size, "kernel_size");
  require_pair(stride, "stride");
  require_pair(padding, "padding");
  problem.R = kernel_size[0], problem.S = kernel_size[1];
  problem.stride_h = stride[0], problem.stride_w = stride[1];
  problem.pad_h = padding[0], problem.pad_w = padding[1];
}

void set_dilation(Problem& problem, const Sizes& dilation) {
  require_pair(dilation, "dilation");
  problem.dilation_h = dilation[0], problem.dilation_w = dilation[1];
}

void set_divisor(Problem& problem, bool count_include_pad, const std::optional<int64_t>& divisor_override) {
  require(divisor_override != 0, "divisor_override must not be 0");
  problem.count_include_pad = count_include_pad;
  problem.divisor_override = divisor_override.value_or(0);
}

void set_x(Problem& problem, const Tensor& x) {
  problem.N = x.size(0), problem.C = x.size(1), problem.H = x.size(2), problem.W = x.size(3);
  problem.x = strides_of(x);
}

void set_y(Problem& problem, const Tensor& y) {
  problem.N = y.size(0), problem.C = y.size(1), problem.P = y.size(2), problem.Q = y.size(3);
  problem.y = strides_of(y);
}

// Bytes are taps of the window, int64 are pixels of the image (problem.h).
void set_indices(Problem& problem, pool2d::Arguments& arguments, Buffers& buffers, const Tensor& indices, const Tensor& like,
                 const char* like_what) {
  require_4d(indices, "indices");
  const bool taps = indices.scalar_type() == ScalarType::Byte;
  require(taps || indices.scalar_type() == ScalarType::Long, "indices must be uint8 or int64");
  problem.index_form = taps ? pool2d::IndexForm::kWindow : pool2d::IndexForm::kFlat;
  require(indices.is_cuda() == like.is_cuda() && indices.get_device_index() == like.get_device_index(), "indices and ", like_what,
          " must be on the same device");
  problem.index = strides_of(indices);
  arguments.index = buffers.input("indices", indices);
}

// A tensor of x's or y's shape, and its strides in the problem.
Tensor empty_x(Problem& problem, const Tensor& like, bool channels_last) {
  Tensor x = empty_4d({problem.N, problem.C, problem.H, problem.W}, like, channels_last);
  problem.x = strides_of(x);
  return x;
}

Tensor empty_y(Problem& problem, const Tensor& like, bool channels_last) {
  Tensor y = empty_4d({problem.N, problem.C, problem.P, problem.Q}, like, channels_last);
  problem.y = strides_of(y);
  return y;
}

// Plans the problem and launches.
void run(Problem problem, pool2d::Arguments arguments, const Buffers& buffers, const std::string& kernel, const Tensor& like) {
  const Device device(like);
  problem.block_shared = device.block_shared();
  const pool2d::Plan plan = pool2d::plan(problem, kernel);
  arguments.stream = device.stream();
  pool2d::run(plan, problem, arguments);
  buffers.require_written(plan.kernel->name);
}

Problem max_problem(const Tensor& input, const Sizes& output_size, const Sizes& kernel_size, const Sizes& stride, const Sizes& padding,
                    const Sizes& dilation) {
  require_4d(input, "input");
  require_pair(output_size, "output_size");
  Problem problem;
  problem.op = Op::kMax;
  problem.dtype = dtype_of(input, "input");
  set_x(problem, input);
  set_geometry(problem, kernel_size, stride, padding);
  set_dilation(problem, dilation);
  problem.P = output_size[0], problem.Q = output_size[1];
  return problem;
}

Tensor max_pool2d(const Tensor& input, Sizes output_size, Sizes kernel_size, Sizes stride, Sizes padding, Sizes dilation,
                  bool channels_last, std::string kernel) {
  Problem problem = max_problem(input, output_size, kernel_size, stride, padding, dilation);
  Tensor output = empty_y(problem, input, channels_last);
  pool2d::Arguments arguments;
  Buffers buffers;
  arguments.x = buffers.input("input", input);
  arguments.out = buffers.output("output", output);
  run(problem, arguments, buffers, kernel, input);
  return output;
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, Sizes output_size, Sizes kernel_size, Sizes stride, Sizes padding,
                                                   Sizes dilation, bool flat_indices, bool channels_last, std::string kernel) {
  Problem problem = max_problem(input, output_size, kernel_size, stride, padding, dilation);
  problem.index_form = flat_indices ? pool2d::IndexForm::kFlat : pool2d::IndexForm::kWindow;
  Tensor output = empty_y(problem, input, channels_last);
  Tensor indices =
      empty({problem.N, problem.C, problem.P, problem.Q}, flat_indices ? ScalarType::Long : ScalarType::Byte, input, channels_last);
  problem.index = strides_of(indices);
  pool2d::Arguments arguments;
  Buffers buffers;
  arguments.x = buffers.input("input", input);
  arguments.out = buffers.output("output", output);
  arguments.index_out = buffers.output("indices", indices);
  run(problem, arguments, buffers, kernel, input);
  return {output, indices};
}

// Where no kernel runs the whole chain, one pooling after the other.
std::tuple<Tensor, Tensor, Tensor> max_pool2d_pyramid(const Tensor& input, int64_t window, bool channels_last, std::string kernel) {
  require_4d(input, "input");
  require(window > 0 && window % 2 == 1, "the window must be odd, not ", window);
  const Sizes side{window, window}, pad{window / 2, window / 2}, one{1, 1};
  Problem problem = max_problem(input, {input.size(2), input.size(3)}, side, one, pad, one);
  Tensor outputs[] = {empty_y(problem, input, channels_last), empty_y(problem, input, channels_last),
                      empty_y(problem, input, channels_last)};
  problem.levels = 3;
  problem.block_shared = Device(input).block_shared();
  if (!kernel.empty() || pool2d::has_plan(problem)) {
    pool2d::Arguments arguments;
    Buffers buffers;
    arguments.x = buffers.input("input", input);
    arguments.out = buffers.output("output", outputs[0]);
    arguments.next_out[0] = buffers.output("output 2", outputs[1]);
    arguments.next_out[1] = buffers.output("output 3", outputs[2]);
    run(problem, arguments, buffers, kernel, input);
  } else {
    const Tensor* from = &input;
    for (Tensor& output : outputs) {
      problem = max_problem(*from, {input.size(2), input.size(3)}, side, one, pad, one);
      problem.y = strides_of(output);
      pool2d::Arguments arguments;
      Buffers buffers;
      arguments.x = buffers.input("input", *from);
      arguments.out = buffers.output("output", output);
      run(problem, arguments, buffers, kernel, input);
      from = &output;
    }
  }
  return {outputs[0], outputs[1], outputs[2]};
}

Tensor max_pool2d_backward(const Tensor& grad_output, const Tensor& indices, Sizes input_size, Sizes kernel_size, Sizes stride,
                           Sizes padding, Sizes dilation, bool channels_last, std::string kernel) {
  require_4d(grad_output, "grad_output");
  require_pair(input_size, "input_size");
  Problem problem;
  pool2d::Arguments arguments;
  Buffers buffers;
  problem.op = Op::kMaxBackward;
  problem.dtype = dtype_of(grad_output, "grad_output");
  set_y(problem, grad_output);
  set_indices(problem, arguments, buffers, indices, grad_output, "grad_output");
  for (int64_t i = 0; i < 4; ++i)
    require(indices.size(i) == grad_output.size(i), "indices ", ShapeOf{indices}, " and grad_output ", ShapeOf{grad_output},
            " must have the same shape");
  set_geometry(problem, kernel_size, stride, padding);
  set_dilation(problem, dilation);
  problem.H = input_size[0], problem.W = input_size[1];
  Tensor grad_input = empty_x(problem, grad_output, channels_last);
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.out = buffers.output("grad_input", grad_input);
  run(problem, arguments, buffers, kernel, grad_output);
  return grad_input;
}

Tensor max_pool2d_gather(const Tensor& input, const Tensor& indices, Sizes kernel_size, Sizes stride, Sizes padding, Sizes dilation,
                         bool channels_last, std::string kernel) {
  require_4d(input, "input");
  Problem problem;
  pool2d::Arguments arguments;
  Buffers buffers;
  problem.op = Op::kMaxGather;
  problem.dtype = dtype_of(input, "input");
  set_x(problem, input);
  set_indices(problem, arguments, buffers, indices, input, "input");
  require(indices.size(0) == problem.N && indices.size(1) == problem.C, "indices ", ShapeOf{indices}, " and input ", ShapeOf{input},
          " must have the same batch and channels");
  set_geometry(problem, kernel_size, stride, padding);
  set_dilation(problem, dilation);
  problem.P = indices.size(2), problem.Q = indices.size(3);
  Tensor output = empty_y(problem, input, channels_last);
  arguments.x = buffers.input("input", input);
  arguments.out = buffers.output("output", output);
  run(problem, arguments, buffers, kernel, input);
  return output;
}

Tensor avg_pool2d(const Tensor& input, Sizes output_size, Sizes kernel_size, Sizes stride, Sizes padding, bool count_include_pad,
                  std::optional<int64_t> divisor_override, bool channels_last, std::string kernel) {
  require_4d(input, "input");
  require_pair(output_size, "output_size");
  Problem problem;
  problem.op = Op::kAvg;
  problem.dtype = dtype_of(input, "input");
  set_x(problem, input);
  set_geometry(problem, kernel_size, stride, padding);
  set_divisor(problem, count_include_pad, divisor_override);
  problem.P = output_size[0], problem.Q = output_size[1];
  Tensor output = empty_y(problem, input, channels_last);
  pool2d::Arguments arguments;
  Buffers buffers;
  arguments.x = buffers.input("input", input);
  arguments.out = buffers.output("output", output);
  run(problem, arguments, buffers, kernel, input);
  return output;
}

Tensor avg_pool2d_backward(const Tensor& grad_output, Sizes input_size, Sizes kernel_size, Sizes stride, Sizes padding,
                           bool count_include_pad, std::optional<int64_t> divisor_override, bool channels_last, std::string kernel) {
  require_4d(grad_output, "grad_output");
  require_pair(input_size, "input_size");
  Problem problem;
  problem.op = Op::kAvgBackward;
  problem.dtype = dtype_of(grad_output, "grad_output");
  set_y(problem, grad_output);
  set_geometry(problem, kernel_size, stride, padding);
  set_divisor(problem, count_include_pad, divisor_override);
  problem.H = input_size[0], problem.W = input_size[1];
  Tensor grad_input = empty_x(problem, grad_output, channels_last);
  pool2d::Arguments arguments;
  Buffers buffers;
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.out = buffers.output("grad_input", grad_input);
  run(problem, arguments, buffers, kernel, grad_output);
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cnnkernels, CNN_DISPATCH_KEY, library) {
  library.impl("max_pool2d", TORCH_BOX(&max_pool2d));
  library.impl("max_pool2d_with_indices", TORCH_BOX(&max_pool2d_with_indices));
  library.impl("max_pool2d_pyramid", TORCH_BOX(&max_pool2d_pyramid));
  library.impl("max_pool2d_backward", TORCH_BOX(&max_pool2d_backward));
  library.impl("max_pool2d_gather", TORCH_BOX(&max_pool2d_gather));
  library.impl("avg_pool2d", TORCH_BOX(&avg_pool2d));
  library.impl("avg_pool2d_backward", TORCH_BOX(&avg_pool2d_backward));
}

}  // namespace cnn::bindings
