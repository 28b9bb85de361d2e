"""Problems for the adaptive kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from cnnkernels.testing.problem import Pool2dProblem

PROBLEMS: tuple[Pool2dProblem, ...] = ()

CHECK_PROBLEMS: tuple[Pool2dProblem, ...] = ()
