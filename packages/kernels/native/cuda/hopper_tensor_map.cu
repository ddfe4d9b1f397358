// See hopper_tensor_map.h. The driver's encoder is looked up at run time, so that nothing links against libcuda.
#include "hopper_tensor_map.h"

#include <string>

#include "../native_fault.h"
#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#include <cudaTypedefs.h>
#endif

namespace variator::cuda {
namespace {

void check(bool isGood, const char* rule) {
  if (!isGood) throw NativeFault(std::string("tensor map: ") + rule);
}

void checkMatrix(const BoxedMatrix& m) {
  const int64_t elementBytes = bytesOf(m.type);
  check(reinterpret_cast<uintptr_t>(m.data) % 16 == 0, "the matrix must start at a multiple of 16 bytes");
  check(m.columns >= 1 && m.rows >= 1 && m.columns <= int64_t{1} << 32 && m.rows <= int64_t{1} << 32,
        "columns and rows must be 1 to 2^32");
  check(m.rowBytes % 16 == 0 && m.rowBytes < int64_t{1} << 40, "rows must be a multiple of 16 bytes apart");
  check(m.rowBytes >= m.columns * elementBytes, "rows overlap");
  check(m.boxColumns >= 1 && m.boxRows >= 1 && m.boxColumns <= 256 && m.boxRows <= 256, "a box has 1 to 256 elements a side");
  check(m.boxColumns * elementBytes % 16 == 0, "a box's row must be a multiple of 16 bytes");
  check(m.boxColumns * elementBytes <= 128, "a box's row has at most 128 bytes");
  check(m.boxPlanes >= 1 && m.boxPlanes <= 256 && (m.planes > 0 || m.boxPlanes == 1), "a box has 1 to 256 planes, of a matrix one");
  check(m.planes == 0 || (m.planeBytes % 16 == 0 && m.planeBytes < int64_t{1} << 40), "planes must be a multiple of 16 bytes apart");
}

bool isSwizzled(const BoxedMatrix& m) { return m.boxColumns * bytesOf(m.type) == 128; }

#if defined(__CUDACC__)
PFN_cuTensorMapEncodeTiled_v12000 findEncoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  const auto error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
  check(error == cudaSuccess && result == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
}
#endif

}  // namespace

#if !defined(__CUDACC__)

TensorMap encodeTensorMap(const BoxedMatrix& m) {
  checkMatrix(m);
  return {m, isSwizzled(m) ? 128u : 0u};
}

#else

TensorMap encodeTensorMap(const BoxedMatrix& m) {
  checkMatrix(m);
  static const auto encode = findEncoder();
  const CUtensorMapDataType type = m.type == ElementType::f32    ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                   : m.type == ElementType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                                 : CU_TENSOR_MAP_DATA_TYPE_UINT8;
  const uint32_t rank = m.planes > 0 ? 3 : 2;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows),
                               static_cast<cuuint64_t>(m.planes)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(m.rowBytes), static_cast<cuuint64_t>(m.planeBytes)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(m.boxColumns), static_cast<cuuint32_t>(m.boxRows),
                              static_cast<cuuint32_t>(m.boxPlanes)};
  const cuuint32_t elementStrides[3] = {1, 1, 1};
  TensorMap map;
  const CUresult error =
      encode(&map, type, rank, const_cast<void*>(m.data), sizes, strides, box, elementStrides, CU_TENSOR_MAP_INTERLEAVE_NONE,
             isSwizzled(m) ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (error != CUDA_SUCCESS) throw NativeFault("tensor map: the driver refuses it with code " + std::to_string(error));
  return map;
}

#endif

}  // namespace variator::cuda
