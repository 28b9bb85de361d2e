"""The passes as differentiable functions: each one's derivatives are other passes, so every order exists.

    y = fprop(x, w)      dy/dx: dgrad(gy, w)     dy/dw: wgrad(gy, x)
    x = dgrad(y, w)      dx/dy: fprop(gx, w)     dx/dw: wgrad(y, gx)
    w = wgrad(y, x)      dw/dy: fprop(x, gw)     dw/dx: dgrad(y, gw)

Every Function takes the raw operator's tensors, a geometry and the name of a backend. `call` runs it: through
autograd where something differentiates or batches, else the backend's operator at once. Forward-mode derivatives
use the same passes. A convolution with its activation (Conv2dActivated) keeps what it gave; activation_grad makes of that and of its
gradient the convolution's. Under vmap the batch dimension is folded into N, into K or C, or into the groups, and one
launch does the whole batch; folding copies a tensor only where its strides do not allow a view.
"""

from cnnkernels.autograd.conv2d import (
    Conv2dActivated,
    Conv2dActivationGrad,
    Conv2dBiasGrad,
    Conv2dDgrad,
    Conv2dFprop,
    Conv2dWgrad,
)
from cnnkernels.autograd.pool2d import (
    AvgPool2d,
    AvgPool2dBackward,
    MaxPool2d,
    MaxPool2dBackward,
    MaxPool2dFlatIndices,
    MaxPool2dGather,
    max_pool2d,
    max_pool2d_pyramid,
)

__all__ = [
    "AvgPool2d",
    "AvgPool2dBackward",
    "Conv2dActivated",
    "Conv2dActivationGrad",
    "Conv2dBiasGrad",
    "Conv2dDgrad",
    "Conv2dFprop",
    "Conv2dWgrad",
    "MaxPool2d",
    "MaxPool2dBackward",
    "MaxPool2dFlatIndices",
    "MaxPool2dGather",
    "max_pool2d",
    "max_pool2d_pyramid",
]
