"""The Triton kernels, a file for each kind. Importing one imports triton."""
