"""Operations that run as kernels of Triton on CUDA devices.

Each operation is a custom operator of torch. On a CPU, a plain version in torch and NumPy computes
it, which defines the result. On CUDA, a kernel does, whose module (``*_kernel``) imports Triton and
is imported at the first call. On the meta device, operations do nothing, so they can be counted.
"""
