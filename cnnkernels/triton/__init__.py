"""The Triton backend: every family of the CUDA kernels a second time, for whoever reads and changes Python.

    kernels/      the kernels: tl programs, each file opening with its formula and its tile
    configs.py    every tile that is tried, with its reason; plan.py takes one of them for a problem
    convolution.py, depthwise.py, pooling.py   from sizes and strides to a grid and arguments
    operators.py, pool_operators.py            torch.ops.cnnkernels_triton.*, with the arguments of torch.ops.cnnkernels.*
    registration.py, launch.py, log.py         how these become operators, how a kernel is launched, and noted
    catalogue.py, explanation.py               every kernel there is; what an operator would launch
    ahead.py, calls.py                         kernels compiled without a GPU, and what their machine code says

Importing this package imports no triton: that happens when a kernel is first needed. On CPU tensors the kernels run under Triton's
interpreter, if TRITON_INTERPRET=1 was set before that.
"""
