// Tensor maps: what TMA needs to know of a matrix in global memory, encoded once on the host. Made by the launch functions
// of the sm_90a kernels and handed to them as __grid_constant__ parameters. Refuses, with the device's own rules, what the
// driver would refuse (PTX ISA, "Tensors"; CUDA driver API, cuTensorMapEncodeTiled), and names what is wrong.
#pragma once
#include <cstdint>
#if defined(__CUDACC__)
#include <cuda.h>
#endif

namespace variator::cuda {

enum class ElementType { bf16, f32, e4m3 };
constexpr uint32_t bytesOf(ElementType type) { return type == ElementType::f32 ? 4 : type == ElementType::bf16 ? 2 : 1; }

/** A row-major matrix, or `planes` of them, and the box that one copy moves. Boxes are 128 bytes wide at most. */
struct BoxedMatrix {
  const void* data;
  ElementType type;
  int64_t columns, rows, rowBytes;
  int boxColumns, boxRows;
  int64_t planes = 0, planeBytes = 0;  // 0 planes: a matrix (two dimensions)
  int boxPlanes = 1;
};

// A kernel's parameter that bulk copies take tensor maps from: `const GRID_CONSTANT Arguments a`.
#if !defined(__CUDACC__)
#define GRID_CONSTANT
struct alignas(64) TensorMap {
  BoxedMatrix matrix;
  uint32_t swizzleBytes;
};
#else
#define GRID_CONSTANT __grid_constant__
using TensorMap = CUtensorMap;
#endif

/** With the 128-byte swizzle where a box's row has 128 bytes, else without. Throws NativeFault. */
TensorMap encodeTensorMap(const BoxedMatrix& matrix);

}  // namespace variator::cuda
