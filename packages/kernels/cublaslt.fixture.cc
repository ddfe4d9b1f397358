// A stand-in for libcublasLt on the emulated device, for tests: its functions as cublasLt.h describes them, as far as
// native/cuda/gemm_library.cc calls them, over host memory, one product at a time in double precision. Anything else that is
// asked of it is refused by the status that cuBLAS has for it. Compiled by cuda-gemm-library.test.ts.
#include <cstddef>
#include <cstdint>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int success = 0, invalidValue = 7, notSupported = 15;
constexpr int float32 = 0, bf16 = 14;
constexpr uint64_t algorithmMark = 0x76617269;

// Column-major: element (row, column) at column * stride + row.
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Description {
  bool isFirstTransposed = false;
};
struct Preference {
  uint64_t workspaceBytes = 0;
};
struct Algorithm {
  uint64_t data[8];
};
struct Result {
  Algorithm algorithm;
  size_t workspaceSize;
  int state;
  float waves;
  int reserved[4];
};
int handleMark;

double at(const void* matrix, const Layout& layout, uint64_t row, uint64_t column) {
  const uint64_t index = column * static_cast<uint64_t>(layout.stride) + row;
  if (layout.type == float32) return static_cast<const float*>(matrix)[index];
  const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(matrix)[index]) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void put(void* matrix, const Layout& layout, uint64_t row, uint64_t column, double value) {
  const uint64_t index = column * static_cast<uint64_t>(layout.stride) + row;
  const auto rounded = static_cast<float>(value);
  if (layout.type == float32) {
    static_cast<float*>(matrix)[index] = rounded;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &rounded, 4);
  static_cast<uint16_t*>(matrix)[index] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

bool fits(const Description& of, const Layout& a, const Layout& b, const Layout& d) {
  const uint64_t rows = of.isFirstTransposed ? a.columns : a.rows, depth = of.isFirstTransposed ? a.rows : a.columns;
  return a.type == bf16 && b.type == bf16 && rows == d.rows && depth == b.rows && b.columns == d.columns;
}

}  // namespace

EXPORT int cublasLtCreate(void** handle) {
  *handle = &handleMark;
  return success;
}
EXPORT int cublasLtDestroy(void* handle) { return handle == &handleMark ? success : invalidValue; }
EXPORT int cublasLtMatmulDescCreate(void** description, int computeType, int scaleType) {
  if (computeType != 68 || scaleType != float32) return notSupported;
  *description = new Description;
  return success;
}
EXPORT int cublasLtMatmulDescDestroy(void* description) {
  delete static_cast<Description*>(description);
  return success;
}
EXPORT int cublasLtMatmulDescSetAttribute(void* description, int attribute, const void* value, size_t bytes) {
  if (attribute != 3 || bytes != 4) return invalidValue;
  int32_t operation;
  std::memcpy(&operation, value, 4);
  if (operation != 0 && operation != 1) return invalidValue;
  static_cast<Description*>(description)->isFirstTransposed = operation == 1;
  return success;
}
EXPORT int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  if ((type != float32 && type != bf16) || stride < static_cast<int64_t>(rows)) return invalidValue;
  *layout = new Layout{type, rows, columns, stride};
  return success;
}
EXPORT int cublasLtMatrixLayoutDestroy(void* layout) {
  delete static_cast<Layout*>(layout);
  return success;
}
EXPORT int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = new Preference;
  return success;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void* preference) {
  delete static_cast<Preference*>(preference);
  return success;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
  if (attribute != 1 || bytes != 8) return invalidValue;
  std::memcpy(&static_cast<Preference*>(preference)->workspaceBytes, value, 8);
  return success;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void* handle, void* description, void* a, void* b, void* c, void* d, void* preference, int wanted, Result* results, int* count) {
  if (handle != &handleMark || wanted < 1 || c != d) return invalidValue;
  if (!fits(*static_cast<Description*>(description), *static_cast<Layout*>(a), *static_cast<Layout*>(b), *static_cast<Layout*>(d))) return notSupported;
  results[0] = {{{algorithmMark}}, static_cast<Preference*>(preference)->workspaceBytes, success, 1, {}};
  *count = 1;
  return success;
}
EXPORT int cublasLtMatmul(void* handle, void* description, const void* alpha, const void* a, void* aLayout, const void* b, void* bLayout, const void* beta, const void* c,
                          void* cLayout, void* d, void* dLayout, const Algorithm* algorithm, void* workspace, size_t workspaceBytes, void* stream) {
  const auto &of = *static_cast<Description*>(description);
  const auto &left = *static_cast<Layout*>(aLayout), &right = *static_cast<Layout*>(bLayout), &before = *static_cast<Layout*>(cLayout), &out = *static_cast<Layout*>(dLayout);
  if (handle != &handleMark || algorithm->data[0] != algorithmMark || stream != nullptr || !fits(of, left, right, out)) return invalidValue;
  // It may write to all of the workspace that it was promised.
  std::memset(workspace, 0xff, workspaceBytes);
  float scale, kept;
  std::memcpy(&scale, alpha, 4);
  std::memcpy(&kept, beta, 4);
  for (uint64_t column = 0; column < out.columns; column++) {
    for (uint64_t row = 0; row < out.rows; row++) {
      double sum = 0;
      for (uint64_t k = 0; k < right.rows; k++) sum += (of.isFirstTransposed ? at(a, left, k, row) : at(a, left, row, k)) * at(b, right, k, column);
      put(d, out, row, column, scale * sum + (kept == 0 ? 0 : kept * at(c, before, row, column)));
    }
  }
  return success;
}
