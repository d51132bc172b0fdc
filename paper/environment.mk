# Environment variables of the pipeline, read by the Makefile and by paper/environment.py.

# Kernels that nearly every x86 processor of the last ten years has. Wider ones sum in another order, so that every number
# would depend on the machine. Block sizes still go by the processor's cache: weights are not the same bytes everywhere.
ATEN_CPU_CAPABILITY ?= avx2
ONEDNN_MAX_CPU_ISA ?= AVX2
MKL_ENABLE_INSTRUCTIONS ?= AVX2

# glibc returns the memory of every step's activations to the system and asks for it again. Keeping it saves 7 to 20 % of
# the processor time of a training step (two pairs of 20 steps of the compact CLIP, one thread).
MALLOC_TRIM_THRESHOLD_ ?= 2000000000
MALLOC_TOP_PAD_ ?= 268435456
MALLOC_MMAP_THRESHOLD_ ?= 33554432
