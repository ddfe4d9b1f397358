// The thin layer that every kernel is written against. nvcc compiles a kernel with device_native.cuh for sm_90a; the host's
// C++ compiler compiles the same lines with device_emulated.h for the emulated device, where tests run them.
//
// To write a kernel: a file `<what>.cu` that includes this one and <what>.h. The header has a plain struct of arguments
// and a launcher, and no word of CUDA, so that engine and checks include it alike. In the .cu:
//   KERNEL(threads) void name(Arguments a) { ... }        // may be a template
//   launch("name", name<...>, {grid, block, sharedBytes}, stream, a);
// Take indices from threadIndex(), blockIndex(), lane(), warp(); shared memory from sharedMemory(); touch 16 bytes at
// once by load16 / store16, which the emulator checks for alignment. Products whose sum must have the same bits in two
// kernels go through multiplyAdd, so that no compiler contracts one of them and not the other.
// To check it: a file checks/<what>.cc beside the others: fresh random inputs, poisoned outputs, odd shapes, a slow
// version in double precision; list it in checks/checks.h. It runs in the emulator under several seeds, and by the same
// code on a GPU.
#pragma once
#include <cstdint>

#include "formats.h"
#include "gpu.h"

#if defined(__CUDACC__)
#include "device_native.cuh"
#else
#include "device_emulated.h"
#endif
