// The adaptive pooling operators: validate, state the problem, plan, allocate, launch.
#include <tuple>

#include "bindings/tensor.h"
#include "pool2d/plan.h"

namespace cnn::bindings {
namespace {

using pool2d::Op;
using pool2d::Problem;

// One call of an operator: its problem, its tensors and their memory.
class Call {
 public:
  // `like`: the operand that dtype, batch, channels and device are taken from.
  Call(Op op, const Tensor& like, const char* what, const Sizes& size, const char* size_what) : like_(like) {
    require_4d(like, what);
    require_pair(size, size_what);
    problem_.op = op;
    problem_.dtype = dtype_of(like, what);
    problem_.N = like.size(0), problem_.C = like.size(1);
    const bool backward = pool2d::is_backward(op);
    problem_.H = backward ? size[0] : like.size(2), problem_.W = backward ? size[1] : like.size(3);
    problem_.P = backward ? like.size(2) : size[0], problem_.Q = backward ? like.size(3) : size[1];
    (backward ? problem_.y : problem_.x) = strides_of(like);
    (backward ? arguments_.y : arguments_.x) = buffers_.input(what, like);
  }

  void read_indices(const Tensor& indices) {
    require_4d(indices, "indices");
    require(indices.scalar_type() == ScalarType::Long, "indices must be int64");
    require(indices.is_cuda() == like_.is_cuda() && indices.get_device_index() == like_.get_device_index(),
            "indices and grad_output must be on the same device");
    for (int64_t i = 0; i < 4; ++i)
      require(indices.size(i) == like_.size(i), "indices ", ShapeOf{indices}, " and grad_output ", ShapeOf{like_},
              " must have the same shape");
    problem_.index = strides_of(indices);
    problem_.index_form = pool2d::IndexForm::kFlat;
    arguments_.index = static_cast<const int64_t*>(buffers_.input("indices", indices));
  }

  Tensor write_result(const char* what, bool channels_last) {
    const bool backward = pool2d::is_backward(problem_.op);
    Tensor result = empty_4d({problem_.N, problem_.C, problem_.target_rows(), problem_.target_columns()}, like_, channels_last);
    (backward ? problem_.x : problem_.y) = strides_of(result);
    arguments_.out = buffers_.output(what, result);
    return result;
  }

  Tensor write_indices(bool channels_last) {
    Tensor indices = empty({problem_.N, problem_.C, problem_.P, problem_.Q}, ScalarType::Long, like_, channels_last);
    problem_.index = strides_of(indices);
    problem_.index_form = pool2d::IndexForm::kFlat;
    arguments_.index_out = static_cast<int64_t*>(buffers_.output("indices", indices));
    return indices;
  }

  void run(const std::string& kernel) {
    const Device device(like_);
    problem_.block_shared = device.block_shared();
    const pool2d::Plan plan = pool2d::plan(problem_, kernel);
    std::optional<Tensor> scratch = workspace(plan.workspace_bytes, problem_.dtype, like_);
    if (scratch) arguments_.workspace = buffers_.workspace(*scratch);
    arguments_.stream = device.stream();
    pool2d::run(plan, problem_, arguments_);
    buffers_.require_written(plan.kernel->name);
  }

 private:
  const Tensor& like_;
  Problem problem_;
  pool2d::Arguments arguments_;
  Buffers buffers_;
};

std::tuple<Tensor, Tensor> adaptive_max_pool2d(const Tensor& input, Sizes output_size, bool channels_last, std::string kernel) {
  Call call(Op::kAdaptiveMax, input, "input", output_size, "output_size");
  Tensor output = call.write_result("output", channels_last);
  Tensor indices = call.write_indices(channels_last);
  call.run(kernel);
  return {output, indices};
}

Tensor adaptive_max_pool2d_backward(const Tensor& grad_output, const Tensor& indices, Sizes input_size, bool channels_last,
                                    std::string kernel) {
  Call call(Op::kAdaptiveMaxBackward, grad_output, "grad_output", input_size, "input_size");
  call.read_indices(indices);
  Tensor grad_input = call.write_result("grad_input", channels_last);
  call.run(kernel);
  return grad_input;
}

Tensor adaptive_avg_pool2d(const Tensor& input, Sizes output_size, bool channels_last, std::string kernel) {
  Call call(Op::kAdaptiveAvg, input, "input", output_size, "output_size");
  Tensor output = call.write_result("output", channels_last);
  call.run(kernel);
  return output;
}

Tensor adaptive_avg_pool2d_backward(const Tensor& grad_output, Sizes input_size, bool channels_last, std::string kernel) {
  Call call(Op::kAdaptiveAvgBackward, grad_output, "grad_output", input_size, "input_size");
  Tensor grad_input = call.write_result("grad_input", channels_last);
  call.run(kernel);
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cnnkernels, CNN_DISPATCH_KEY, library) {
  library.impl("adaptive_max_pool2d", TORCH_BOX(&adaptive_max_pool2d));
  library.impl("adaptive_max_pool2d_backward", TORCH_BOX(&adaptive_max_pool2d_backward));
  library.impl("adaptive_avg_pool2d", TORCH_BOX(&adaptive_avg_pool2d));
  library.impl("adaptive_avg_pool2d_backward", TORCH_BOX(&adaptive_avg_pool2d_backward));
}

}  // namespace cnn::bindings
