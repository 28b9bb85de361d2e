// The convolution operators: validate, state the problem, plan, allocate, launch.
#include <limits>

#include "bindings/tensor.h"
#include "conv2d/plan.h"

namespace cnn::bindings {
namespace {

using conv2d::Pass;
using conv2d::Problem;

conv2d::PaddingMode padding_mode_named(const std::string& name) {
  using conv2d::PaddingMode;
  for (PaddingMode mode : {PaddingMode::kZeros, PaddingMode::kReflect, PaddingMode::kReplicate, PaddingMode::kCircular})
    if (name == conv2d::name_of(mode)) return mode;
  throw std::runtime_error("padding_mode must be zeros, reflect, replicate or circular, not '" + name + "'");
}

void set_geometry(Problem& problem, const Sizes& stride, const Sizes& padding, const Sizes& dilation, int64_t groups,
                  const std::string& padding_mode, bool allow_tf32) {
  require_pair(stride, "stride");
  require_pair(padding, "padding");
  require_pair(dilation, "dilation");
  problem.stride_h = stride[0], problem.stride_w = stride[1];
  problem.pad_h = padding[0], problem.pad_w = padding[1];
  problem.dilation_h = dilation[0], problem.dilation_w = dilation[1];
  problem.groups = groups;
  problem.padding_mode = padding_mode_named(padding_mode);
  problem.allow_tf32 = allow_tf32;
}

void set_x(Problem& problem, const Tensor& x) {
  problem.N = x.size(0), problem.C = x.size(1), problem.H = x.size(2), problem.W = x.size(3);
  problem.x = strides_of(x);
}

void set_y(Problem& problem, const Tensor& y) {
  problem.N = y.size(0), problem.K = y.size(1), problem.P = y.size(2), problem.Q = y.size(3);
  problem.y = strides_of(y);
}

void set_w(Problem& problem, const Tensor& w) {
  problem.K = w.size(0), problem.R = w.size(2), problem.S = w.size(3);
  problem.w = strides_of(w);
}

void set_bias(conv2d::Arguments& arguments, Buffers& buffers, const std::optional<Tensor>& bias, const Tensor& weight, int64_t channels) {
  if (!bias) return;
  require_like(*bias, "bias", weight, "weight");
  require(bias->dim() == 1 && bias->size(0) == channels, "bias must have shape [", channels, "], not ", ShapeOf{*bias});
  arguments.epilogue.bias = buffers.input("bias", *bias);
  arguments.epilogue.bias_stride = bias->stride(0);
}

// BatchNorm's four, of which scale and shift may be missing.
struct Norm {
  const std::optional<Tensor>&mean, &variance, &scale, &shift;
  double eps;
};

void set_norm(conv2d::Epilogue& epilogue, Buffers& buffers, const Norm& norm, const Tensor& weight, int64_t channels) {
  require(norm.mean.has_value() == norm.variance.has_value(), "mean and variance belong together");
  if (!norm.variance) {
    require(!norm.scale && !norm.shift, "scale and shift are of a BatchNorm, which has a mean and a variance");
    return;
  }
  epilogue.norm_is_float = norm.variance->scalar_type() == ScalarType::Float && weight.scalar_type() != ScalarType::Double;
  const auto values = [&](const std::optional<Tensor>& tensor, const char* what) -> const void* {
    if (!tensor) return nullptr;
    if (!epilogue.norm_is_float) require_like(*tensor, what, weight, "weight");
    else require_like(*tensor, what, *norm.variance, "variance");
    require(tensor->is_cuda() == weight.is_cuda() && tensor->get_device_index() == weight.get_device_index(), what,
            " and weight must be on the same device");
    require(tensor->dim() == 1 && tensor->size(0) == channels && (channels == 1 || tensor->stride(0) == 1), what,
            " must be dense and have shape [", channels, "], not ", ShapeOf{*tensor});
    return buffers.input(what, *tensor);
  };
  epilogue.mean = values(norm.mean, "mean"), epilogue.variance = values(norm.variance, "variance");
  epilogue.scale = values(norm.scale, "scale"), epilogue.shift = values(norm.shift, "shift");
  epilogue.eps = norm.eps;
}

void set_activation(conv2d::Epilogue& epilogue, const std::string& name, double negative_slope) {
  using conv2d::Activation;
  epilogue.slope = 1, epilogue.most = std::numeric_limits<double>::infinity();
  if (name == "none") epilogue.activation = Activation::kNone;
  else if (name == "relu") epilogue.activation = Activation::kLines, epilogue.slope = 0;
  else if (name == "relu6") epilogue.activation = Activation::kLines, epilogue.slope = 0, epilogue.most = 6;
  else if (name == "leaky_relu") epilogue.activation = Activation::kLines, epilogue.slope = negative_slope;
  else if (name == "silu") epilogue.activation = Activation::kSilu;
  else if (name == "gelu") epilogue.activation = Activation::kGelu;
  else if (name == "gelu_tanh") epilogue.activation = Activation::kGeluTanh;
  else if (name == "hardswish") epilogue.activation = Activation::kHardswish;
  else require(false, "activation must be none, relu, relu6, leaky_relu, silu, gelu, gelu_tanh or hardswish, not '", name, "'");
}

// Plans the problem, gives it its workspace and launches.
void run(Problem problem, conv2d::Arguments arguments, Buffers& buffers, const std::string& kernel, const Tensor& like) {
  const Device device(like);
  problem.block_shared = device.block_shared();
  const conv2d::Plan plan = conv2d::plan(problem, kernel);
  std::optional<Tensor> scratch = workspace(plan.workspace_bytes, problem.dtype, like);
  arguments.workspace = scratch ? buffers.workspace(*scratch) : nullptr;
  arguments.stream = device.stream();
  conv2d::run(plan, problem, arguments);
  buffers.require_written(plan.kernel->name);
}

// The convolution with `epilogue`, to which the bias and the residual are added here.
Tensor fprop(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
             const Sizes& output_size, const Sizes& stride, const Sizes& padding, const Sizes& dilation, int64_t groups, bool channels_last,
             const std::string& kernel, const std::string& padding_mode, bool allow_tf32, const conv2d::Epilogue& epilogue,
             Buffers& buffers) {
  require_4d(input, "input");
  require_4d(weight, "weight");
  require_like(input, "input", weight, "weight");
  require_pair(output_size, "output_size");
  Problem problem;
  problem.pass = Pass::kFprop;
  problem.dtype = dtype_of(input, "input");
  set_w(problem, weight);
  set_x(problem, input);
  set_geometry(problem, stride, padding, dilation, groups, padding_mode, allow_tf32);
  problem.P = output_size[0], problem.Q = output_size[1];
  require(weight.size(1) * groups == problem.C, "input ", ShapeOf{input}, " does not fit weight ", ShapeOf{weight},
          " with groups=", groups);
  conv2d::Arguments arguments;
  arguments.epilogue = epilogue;
  set_bias(arguments, buffers, bias, weight, problem.K);
  Tensor output = empty_4d({problem.N, problem.K, problem.P, problem.Q}, input, channels_last);
  problem.y = strides_of(output);
  arguments.x = buffers.input("input", input);
  arguments.w = buffers.input("weight", weight);
  arguments.out = buffers.output("output", output);
  if (residual) {
    require_like(*residual, "residual", input, "input");
    require_4d(*residual, "residual");
    for (int64_t axis = 0; axis < 4; ++axis)
      require(residual->size(axis) == output.size(axis), "residual ", ShapeOf{*residual}, " and output ", ShapeOf{output},
              " differ in shape");
    for (int64_t axis = 0; axis < 4; ++axis)
      require(output.size(axis) == 1 || residual->stride(axis) == output.stride(axis), "residual does not lie as the output does");
    arguments.epilogue.add(buffers.input("residual", *residual), arguments.out);
  }
  run(problem, arguments, buffers, kernel, input);
  return output;
}

Tensor conv2d_fprop(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, Sizes output_size, Sizes stride,
                    Sizes padding, Sizes dilation, int64_t groups, bool channels_last, std::string kernel, std::string padding_mode,
                    bool allow_tf32) {
  Buffers buffers;
  return fprop(input, weight, bias, std::nullopt, output_size, stride, padding, dilation, groups, channels_last, kernel, padding_mode,
               allow_tf32, {}, buffers);
}

Tensor conv2d_fused(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, const std::optional<Tensor>& mean,
                    const std::optional<Tensor>& variance, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                    double eps, const std::optional<Tensor>& residual, std::string activation, double negative_slope, Sizes output_size,
                    Sizes stride, Sizes padding, Sizes dilation, int64_t groups, bool channels_last, std::string kernel,
                    std::string padding_mode, bool allow_tf32) {
  require_4d(weight, "weight");
  Buffers buffers;
  conv2d::Epilogue epilogue{};
  set_norm(epilogue, buffers, {mean, variance, scale, shift, eps}, weight, weight.size(0));
  set_activation(epilogue, activation, negative_slope);
  return fprop(input, weight, bias, residual, output_size, stride, padding, dilation, groups, channels_last, kernel, padding_mode,
               allow_tf32, epilogue, buffers);
}

Tensor conv2d_dgrad(const Tensor& grad_output, const Tensor& weight, const std::optional<Tensor>& bias, Sizes input_size, Sizes stride,
                    Sizes padding, Sizes dilation, int64_t groups, bool channels_last, std::string kernel, std::string padding_mode,
                    bool allow_tf32) {
  require_4d(grad_output, "grad_output");
  require_4d(weight, "weight");
  require_like(grad_output, "grad_output", weight, "weight");
  require_pair(input_size, "input_size");
  Problem problem;
  problem.pass = Pass::kDgrad;
  problem.dtype = dtype_of(grad_output, "grad_output");
  set_w(problem, weight);
  set_y(problem, grad_output);
  set_geometry(problem, stride, padding, dilation, groups, padding_mode, allow_tf32);
  problem.C = weight.size(1) * groups, problem.H = input_size[0], problem.W = input_size[1];
  require(weight.size(0) == problem.K, "grad_output ", ShapeOf{grad_output}, " does not fit weight ", ShapeOf{weight});
  conv2d::Arguments arguments;
  Buffers buffers;
  set_bias(arguments, buffers, bias, weight, problem.C);
  Tensor grad_input = empty_4d({problem.N, problem.C, problem.H, problem.W}, grad_output, channels_last);
  problem.x = strides_of(grad_input);
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.w = buffers.input("weight", weight);
  arguments.out = buffers.output("grad_input", grad_input);
  run(problem, arguments, buffers, kernel, grad_output);
  return grad_input;
}

Tensor conv2d_wgrad(const Tensor& grad_output, const Tensor& input, Sizes kernel_size, Sizes stride, Sizes padding, Sizes dilation,
                    int64_t groups, bool channels_last, std::string kernel, std::string padding_mode, bool allow_tf32) {
  require_4d(grad_output, "grad_output");
  require_4d(input, "input");
  require_like(grad_output, "grad_output", input, "input");
  require_pair(kernel_size, "kernel_size");
  require(grad_output.size(0) == input.size(0), "grad_output ", ShapeOf{grad_output}, " and input ", ShapeOf{input},
          " differ in batch size");
  require(groups > 0 && input.size(1) % groups == 0, "groups=", groups, " must be positive and divide the channels of input ",
          ShapeOf{input});
  Problem problem;
  problem.pass = Pass::kWgrad;
  problem.dtype = dtype_of(input, "input");
  set_y(problem, grad_output);
  set_x(problem, input);
  set_geometry(problem, stride, padding, dilation, groups, padding_mode, allow_tf32);
  problem.R = kernel_size[0], problem.S = kernel_size[1];
  Tensor grad_weight = empty_4d({problem.K, problem.channels_per_group(), problem.R, problem.S}, input, channels_last);
  problem.w = strides_of(grad_weight);
  conv2d::Arguments arguments;
  Buffers buffers;
  arguments.x = buffers.input("input", input);
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.out = buffers.output("grad_weight", grad_weight);
  run(problem, arguments, buffers, kernel, input);
  return grad_weight;
}

Tensor conv2d_bias_grad(const Tensor& grad_output, std::string kernel) {
  require_4d(grad_output, "grad_output");
  Problem problem;
  problem.pass = Pass::kBiasGrad;
  problem.dtype = dtype_of(grad_output, "grad_output");
  problem.R = problem.S = 1;
  set_y(problem, grad_output);
  Tensor grad_bias = empty({problem.K}, grad_output.scalar_type(), grad_output, false);
  conv2d::Arguments arguments;
  Buffers buffers;
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.out = buffers.output("grad_bias", grad_bias);
  run(problem, arguments, buffers, kernel, grad_output);
  return grad_bias;
}

// The gradient before an activation of straight lines, from what it gave and the gradient of that: one shape, any strides.
Tensor conv2d_activation_grad(const Tensor& grad_output, const Tensor& output, std::string activation, double negative_slope,
                              bool channels_last, std::string kernel) {
  require_4d(grad_output, "grad_output");
  require_4d(output, "output");
  require_like(grad_output, "grad_output", output, "output");
  for (int64_t axis = 0; axis < 4; ++axis)
    require(grad_output.size(axis) == output.size(axis), "grad_output ", ShapeOf{grad_output}, " and output ", ShapeOf{output},
            " differ in shape");
  conv2d::Arguments arguments;
  set_activation(arguments.epilogue, activation, negative_slope);
  require(arguments.epilogue.activation == conv2d::Activation::kLines && arguments.epilogue.slope >= 0,
          "the gradient of an activation can be told from its result for relu, relu6 and leaky_relu with a slope that is not negative, not "
          "for '",
          activation, "' with ", negative_slope);
  Problem problem;
  problem.pass = Pass::kActivationGrad;
  problem.dtype = dtype_of(grad_output, "grad_output");
  problem.R = problem.S = 1;
  set_y(problem, grad_output);
  problem.C = problem.K, problem.H = problem.P, problem.W = problem.Q;
  problem.w = strides_of(output);
  Tensor grad = empty_4d({problem.N, problem.K, problem.P, problem.Q}, grad_output, channels_last);
  problem.x = strides_of(grad);
  Buffers buffers;
  arguments.y = buffers.input("grad_output", grad_output);
  arguments.w = buffers.input("output", output);
  arguments.out = buffers.output("grad", grad);
  run(problem, arguments, buffers, kernel, grad_output);
  return grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cnnkernels, CNN_DISPATCH_KEY, library) {
  library.impl("conv2d_fprop", TORCH_BOX(&conv2d_fprop));
  library.impl("conv2d_fused", TORCH_BOX(&conv2d_fused));
  library.impl("conv2d_dgrad", TORCH_BOX(&conv2d_dgrad));
  library.impl("conv2d_wgrad", TORCH_BOX(&conv2d_wgrad));
  library.impl("conv2d_bias_grad", TORCH_BOX(&conv2d_bias_grad));
  library.impl("conv2d_activation_grad", TORCH_BOX(&conv2d_activation_grad));
}

}  // namespace cnn::bindings
