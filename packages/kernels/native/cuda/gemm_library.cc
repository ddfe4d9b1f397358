// See gemm_library.h. Of cublasLt.h only what is called is declared here, with its values (the same in CUDA 12 and 13). The
// library counts columns first: the matrix [rows, columns] is its [columns, rows] and is transposed, x is [columns, rowCount].
#include "gemm_library.h"

#include <dlfcn.h>

#include <string>
#include <type_traits>

#include "../native_fault.h"

namespace variator::cuda {

namespace {

constexpr int float32Type = 0, bf16Type = 14;       // cudaDataType: CUDA_R_32F, CUDA_R_16BF
constexpr int computeFloat32 = 68;                  // cublasComputeType_t: CUBLAS_COMPUTE_32F
constexpr int32_t transposed = 1;                   // cublasOperation_t: CUBLAS_OP_T
constexpr int transposeOfFirst = 3;                 // cublasLtMatmulDescAttributes_t: CUBLASLT_MATMUL_DESC_TRANSA
constexpr int mostWorkspaceBytes = 1;               // cublasLtMatmulPreferenceAttributes_t: CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
constexpr uint64_t workspaceBytes = 32 << 20;       // what NVIDIA advises for Hopper
constexpr size_t mostPlans = 1024;

constexpr const char* names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

struct Algorithm {
  uint64_t data[8];
};
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspaceSize;
  int state;
  float wavesCount;
  int reserved[4];
};

void check(int status, const char* what) {
  if (status != 0) throw NativeFault(std::string("cuBLASLt: ") + what + " returned " + std::to_string(status));
}

}  // namespace

struct GemmLibraryFunctions {
  int (*create)(void**) = nullptr;
  int (*destroy)(void*) = nullptr;
  int (*createDescription)(void**, int computeType, int scaleType) = nullptr;
  int (*destroyDescription)(void*) = nullptr;
  int (*setOfDescription)(void*, int attribute, const void* value, size_t bytes) = nullptr;
  int (*createLayout)(void**, int type, uint64_t rows, uint64_t columns, int64_t stride) = nullptr;
  int (*destroyLayout)(void*) = nullptr;
  int (*createPreference)(void**) = nullptr;
  int (*destroyPreference)(void*) = nullptr;
  int (*setOfPreference)(void*, int attribute, const void* value, size_t bytes) = nullptr;
  int (*chooseAlgorithm)(void* handle, void* description, void* a, void* b, void* c, void* d, void* preference, int wanted, HeuristicResult* results, int* count) = nullptr;
  int (*multiply)(void* handle, void* description, const void* alpha, const void* a, void* aLayout, const void* b, void* bLayout, const void* beta,
                  const void* c, void* cLayout, void* d, void* dLayout, const Algorithm* algorithm, void* workspace, size_t workspaceBytes, void* stream) = nullptr;
  bool isThere = false;

  GemmLibraryFunctions() {
    void* library = nullptr;
    for (const char* name : names) {
      if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (library == nullptr) return;
    isThere = true;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      isThere = isThere && function != nullptr;
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(createDescription, "cublasLtMatmulDescCreate");
    find(destroyDescription, "cublasLtMatmulDescDestroy");
    find(setOfDescription, "cublasLtMatmulDescSetAttribute");
    find(createLayout, "cublasLtMatrixLayoutCreate");
    find(destroyLayout, "cublasLtMatrixLayoutDestroy");
    find(createPreference, "cublasLtMatmulPreferenceCreate");
    find(destroyPreference, "cublasLtMatmulPreferenceDestroy");
    find(setOfPreference, "cublasLtMatmulPreferenceSetAttribute");
    find(chooseAlgorithm, "cublasLtMatmulAlgoGetHeuristic");
    find(multiply, "cublasLtMatmul");
  }
};

namespace {

const GemmLibraryFunctions& functions() {
  static const GemmLibraryFunctions all;
  return all;
}

}  // namespace

struct GemmLibrary::Plan {
  explicit Plan(const GemmLibraryFunctions& library) : library(library) {}
  ~Plan() {
    for (void* layout : {matrix, x, out}) {
      if (layout != nullptr) library.destroyLayout(layout);
    }
    if (description != nullptr) library.destroyDescription(description);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const GemmLibraryFunctions& library;
  void *description = nullptr, *matrix = nullptr, *x = nullptr, *out = nullptr;
  Algorithm algorithm{};
};

bool GemmLibrary::isThere() { return functions().isThere; }

GemmLibrary::GemmLibrary() : library_(functions()) {
  if (!library_.isThere) {
    std::string tried;
    for (const char* name : names) tried += (tried.empty() ? "" : ", ") + std::string(name);
    throw NativeFault("cuBLASLt is not to be found (" + tried + "): paths by it cannot run on this machine");
  }
  check(library_.create(&handle_), "cublasLtCreate");
  const int status = library_.createPreference(&preference_);
  if (status != 0 || library_.setOfPreference(preference_, mostWorkspaceBytes, &workspaceBytes, sizeof(workspaceBytes)) != 0) {
    library_.destroy(handle_);
    throw NativeFault("cuBLASLt: makes no preference");
  }
  workspace_ = DeviceArray<uint8_t>(workspaceBytes);
}

GemmLibrary::~GemmLibrary() {
  plans_.clear();
  library_.destroyPreference(preference_);
  library_.destroy(handle_);
}

std::shared_ptr<const GemmLibrary::Plan> GemmLibrary::planOf(const LinearArguments& a) {
  auto& known = plans_[{a.rows, a.columns, a.rowCount, a.take}];
  if (known != nullptr) return known;
  const auto plan = std::make_shared<Plan>(library_);
  const int outType = a.take == Take::AsBf16 ? bf16Type : float32Type;
  check(library_.createDescription(&plan->description, computeFloat32, float32Type), "cublasLtMatmulDescCreate");
  check(library_.setOfDescription(plan->description, transposeOfFirst, &transposed, sizeof(transposed)), "cublasLtMatmulDescSetAttribute");
  check(library_.createLayout(&plan->matrix, bf16Type, static_cast<uint64_t>(a.columns), static_cast<uint64_t>(a.rows), a.columns), "cublasLtMatrixLayoutCreate");
  check(library_.createLayout(&plan->x, bf16Type, static_cast<uint64_t>(a.columns), static_cast<uint64_t>(a.rowCount), a.columns), "cublasLtMatrixLayoutCreate");
  check(library_.createLayout(&plan->out, outType, static_cast<uint64_t>(a.rows), static_cast<uint64_t>(a.rowCount), a.rows), "cublasLtMatrixLayoutCreate");
  HeuristicResult best{};
  int count = 0;
  const int status = library_.chooseAlgorithm(handle_, plan->description, plan->matrix, plan->x, plan->out, plan->out, preference_, 1, &best, &count);
  if (status != 0 || count < 1 || best.state != 0) {
    plans_.erase({a.rows, a.columns, a.rowCount, a.take});
    throw NativeFault("cuBLASLt: has no algorithm for " + std::to_string(a.rowCount) + " rows by [" + std::to_string(a.rows) + ", " + std::to_string(a.columns) + "] (" + std::to_string(status) + ")");
  }
  plan->algorithm = best.algorithm;
  known = plan;
  return plan;
}

void GemmLibrary::multiply(const LinearArguments& a, Stream stream) {
  if (a.columns % 8 != 0) throw NativeFault("cuBLASLt: columns must be a multiple of 8");
  if (plans_.size() >= mostPlans) plans_.clear();
  callInOrder(stream, [plan = planOf(a), a, handle = handle_, workspace = workspace_.data()](void* runtimeStream) {
    const float one = 1, kept = a.take == Take::AddToResidual ? 1.0f : 0.0f;
    check(plan->library.multiply(handle, plan->description, &one, a.weight, plan->matrix, a.x, plan->x, &kept, a.out, plan->out, a.out, plan->out, &plan->algorithm,
                                 workspace, workspaceBytes, runtimeStream),
          "cublasLtMatmul");
  });
}

}  // namespace variator::cuda
