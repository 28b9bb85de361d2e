// Every operator of the package, one per line: the index. Definitions in library.cpp, kernels in bindings/, fakes in cnnkernels/ops.py.
//
// All tensors are 4-D, of one dtype (fp64, fp32, fp16, bf16) and any strides. `padding` is the padding before the first row and column;
// the sizes that it cannot tell are arguments. The indices of max pooling are taps of the window in uint8 (windows of at most 256 taps), or
// with `flat_indices` torch's int64 pixels of the image; backward and gather take both. `channels_last` is the memory format of the result.
// conv2d_fused is conv2d_fprop, then BatchNorm by mean[K], variance[K], scale[K] and shift[K] (float32 or the tensors' dtype) unless
// variance is null, then the residual, which lies as the result does, then an activation by name (conv2d/epilogue.cuh). `kernel_name` names
// a catalogue entry that must run, or is empty and leaves the choice to the plan (it is not `kernel`, because inductor's fallback has a
// parameter of that name). `allow_tf32`: fp32 may be multiplied with ten bits after the point.
#pragma once

namespace cnn {

// clang-format off
constexpr const char* kSchemas[] = {
    "conv2d_fprop(Tensor input, Tensor weight, Tensor? bias, SymInt[2] output_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, bool channels_last, str kernel_name=\"\", str padding_mode=\"zeros\", bool allow_tf32=False) -> Tensor",
    "conv2d_fused(Tensor input, Tensor weight, Tensor? bias, Tensor? mean, Tensor? variance, Tensor? scale, Tensor? shift, float eps, Tensor? residual, str activation, float negative_slope, SymInt[2] output_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, bool channels_last, str kernel_name=\"\", str padding_mode=\"zeros\", bool allow_tf32=False) -> Tensor",
    "conv2d_dgrad(Tensor grad_output, Tensor weight, Tensor? bias, SymInt[2] input_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, bool channels_last, str kernel_name=\"\", str padding_mode=\"zeros\", bool allow_tf32=False) -> Tensor",
    "conv2d_wgrad(Tensor grad_output, Tensor input, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, bool channels_last, str kernel_name=\"\", str padding_mode=\"zeros\", bool allow_tf32=False) -> Tensor",
    "conv2d_bias_grad(Tensor grad_output, str kernel_name=\"\") -> Tensor",
    "conv2d_activation_grad(Tensor grad_output, Tensor output, str activation, float negative_slope, bool channels_last, str kernel_name=\"\") -> Tensor",
    "max_pool2d(Tensor input, SymInt[2] output_size, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool channels_last, str kernel_name=\"\") -> Tensor",
    "max_pool2d_with_indices(Tensor input, SymInt[2] output_size, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool flat_indices, bool channels_last, str kernel_name=\"\") -> (Tensor, Tensor)",
    "max_pool2d_pyramid(Tensor input, SymInt window, bool channels_last, str kernel_name=\"\") -> (Tensor, Tensor, Tensor)",
    "max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[2] input_size, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool channels_last, str kernel_name=\"\") -> Tensor",
    "max_pool2d_gather(Tensor input, Tensor indices, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool channels_last, str kernel_name=\"\") -> Tensor",
    "avg_pool2d(Tensor input, SymInt[2] output_size, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, bool count_include_pad, SymInt? divisor_override, bool channels_last, str kernel_name=\"\") -> Tensor",
    "avg_pool2d_backward(Tensor grad_output, SymInt[2] input_size, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, bool count_include_pad, SymInt? divisor_override, bool channels_last, str kernel_name=\"\") -> Tensor",
    "adaptive_max_pool2d(Tensor input, SymInt[2] output_size, bool channels_last, str kernel_name=\"\") -> (Tensor, Tensor)",
    "adaptive_max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt[2] input_size, bool channels_last, str kernel_name=\"\") -> Tensor",
    "adaptive_avg_pool2d(Tensor input, SymInt[2] output_size, bool channels_last, str kernel_name=\"\") -> Tensor",
    "adaptive_avg_pool2d_backward(Tensor grad_output, SymInt[2] input_size, bool channels_last, str kernel_name=\"\") -> Tensor",
};
// clang-format on

}  // namespace cnn
