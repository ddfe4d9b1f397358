// See linear_layers.h.
#include "linear_layers.h"

#include <algorithm>
#include <string>

#include "../native_fault.h"
#include "gemm_wgmma.h"
#include "skinny_wgmma.h"

namespace variator::cuda {
namespace {

constexpr int32_t leastWgmmaRows = 128, mostQuantisedRowsPerWarp = 2, mostSkinnyRows = 64;
// A part of the depth fills a ring of eight stages once, or is not worth a block of its own.
constexpr int32_t leastSkinnySteps = 8, mostSkinnySplits = 8;
constexpr MatrixRole layerRoles[] = {MatrixRole::Qkv, MatrixRole::O, MatrixRole::GateUp, MatrixRole::Down};

// The least compiled variant for so many rows, of the plainest shape.
SkinnyVariant skinnyOf(bool isE4m3, int32_t rowCount) {
  const SkinnyVariant* best = nullptr;
  for (const SkinnyVariant& one : skinnyVariants()) {
    const bool isFit = one.isE4m3 == isE4m3 && one.tileM == 64 && one.tileK == 1 && one.mostRows >= rowCount;
    if (isFit && (best == nullptr || one.mostRows < best->mostRows)) best = &one;
  }
  if (best == nullptr) throw NativeFault("linear layers: there is no such skinny variant");
  return *best;
}

// gemm_wgmma.h calls the matrix's rows columns. The first compiled variant with the wanted results.
void runGemm(GemmType type, const void* x, const float* xScales, const void* weights, const float* weightScales, const LinearArguments& a, Stream stream) {
  const bool isFloat = a.take != Take::AsBf16;
  for (const GemmVariant& variant : gemmVariants()) {
    if (variant.type != type || variant.isFloatOut != isFloat) continue;
    GemmArguments arguments{};
    arguments.activations = x;
    arguments.weights = weights;
    arguments.activationScales = xScales;
    arguments.weightScales = weightScales;
    arguments.addend = a.take == Take::AddToResidual ? static_cast<const float*>(a.out) : nullptr;
    arguments.out = a.out;
    arguments.rows = a.rowCount;
    arguments.columns = a.rows;
    arguments.depth = a.columns;
    gemmWgmma(variant, arguments, stream);
    return;
  }
  throw NativeFault("linear layers: there is no such wgmma variant");
}

int32_t tileOf(const VariatorCudaPath& path, int32_t rowCount) { return path.mmaTile > 0 ? path.mmaTile : defaultMmaTile(rowCount); }

template <typename Matrix>
int32_t multiplyQuantised(const VariatorCudaPath& path, const LinearArguments& a, const Matrix& matrix, Stream stream) {
  if (path.linear != VARIATOR_CUDA_LINEAR_MMA && a.rowCount <= mostGemvRows) {
    linearByGemv(a, matrix, std::min(path.gemvRowsPerWarp, mostQuantisedRowsPerWarp), stream);
  } else {
    linearByMma(a, matrix, tileOf(path, a.rowCount), stream);
  }
  return 1;
}

}  // namespace

bool usesWgmma(const VariatorCudaPath& path) {
  return path.linear == VARIATOR_CUDA_LINEAR_WGMMA || path.linear == VARIATOR_CUDA_LINEAR_SKINNY;
}

void checkLinearPath(const VariatorCudaPath& path) {
  const auto require = [](bool isMet, const char* fault) {
    if (!isMet) throw NativeFault(std::string("path: ") + fault);
  };
  require(path.linear >= VARIATOR_CUDA_LINEAR_MMA && path.linear <= VARIATOR_CUDA_LINEAR_SKINNY, "there is no such linear variant");
  require(path.weights >= VARIATOR_CUDA_WEIGHTS_BF16 && path.weights <= VARIATOR_CUDA_WEIGHTS_INT4, "there is no such format of weights");
  require(path.weights != VARIATOR_CUDA_WEIGHTS_INT4 || !usesWgmma(path), "wgmma multiplies no weights of 4 bits");
  require(path.weights == VARIATOR_CUDA_WEIGHTS_BF16 || path.linear != VARIATOR_CUDA_LINEAR_LIBRARY, "the library multiplies weights in bf16 alone");
  require(path.mmaTile >= 0 && path.mmaTile <= mmaTileCount(), "there is no such mmaTile");
  require(path.gemvRowsPerWarp == 1 || path.gemvRowsPerWarp == 2 || path.gemvRowsPerWarp == 4, "gemvRowsPerWarp must be 1, 2 or 4");
  require(path.gemvLoads == 4 || path.gemvLoads == 8, "gemvLoads must be 4 or 8");
}

LinearLayers::Matrix LinearLayers::matrixOf(MatrixRole role, int32_t layer) const {
  const int32_t hidden = model_.hiddenSize, intermediate = model_.intermediateSize;
  switch (role) {
    case MatrixRole::Qkv: return {model_.layers[layer].qkv.data(), model_.qkvSize(), hidden};
    case MatrixRole::O: return {model_.layers[layer].o.data(), hidden, model_.headCount * model_.headSize};
    case MatrixRole::GateUp: return {model_.layers[layer].gateUp.data(), 2 * intermediate, hidden};
    case MatrixRole::Down: return {model_.layers[layer].down.data(), hidden, intermediate};
    case MatrixRole::Head: return {model_.head(), model_.vocabularySize, hidden};
  }
  throw NativeFault("linear layers: there is no such matrix");
}

LinearLayers::Fp8Copy LinearLayers::fp8Of(MatrixRole role, int32_t layer, Stream stream) const {
  const Matrix from = matrixOf(role, layer);
  Fp8Copy copy{DeviceArray<uint8_t>(int64_t{from.rows} * from.columns), DeviceArray<float>(from.rows)};
  quantiseToFp8(from.values, from.rows, from.columns, copy.codes.data(), copy.scales.data(), stream);
  return copy;
}

LinearLayers::Int4Copy LinearLayers::int4Of(MatrixRole role, int32_t layer, Stream stream) const {
  const Matrix from = matrixOf(role, layer);
  Int4Copy copy{DeviceArray<uint32_t>(int64_t{from.rows} * from.columns / 8), DeviceArray<float>(int64_t{from.rows} * int4GroupsOf(from.columns))};
  quantiseToInt4(from.values, from.rows, from.columns, copy.codes.data(), copy.scales.data(), stream);
  return copy;
}

void LinearLayers::prepare(const VariatorCudaPath& path, Stream stream) {
  if (path.linear == VARIATOR_CUDA_LINEAR_LIBRARY && library_ == nullptr) library_ = std::make_unique<GemmLibrary>();
  if (path.linear == VARIATOR_CUDA_LINEAR_SKINNY && skinnyArrivals_.count() == 0) {
    int64_t partialCount = 0, tileCount = 0;
    for (const MatrixRole role : {MatrixRole::Qkv, MatrixRole::O, MatrixRole::GateUp, MatrixRole::Down, MatrixRole::Head}) {
      const Matrix matrix = matrixOf(role, 0);
      for (const bool isE4m3 : {false, true}) {
        SkinnyVariant variant = skinnyOf(isE4m3, mostSkinnyRows);
        variant.splits = skinnySplitsOf(matrix, isE4m3);
        partialCount = std::max(partialCount, skinnyPartialCount(variant, matrix.rows));
        tileCount = std::max(tileCount, skinnyTileCount(variant, matrix.rows));
      }
    }
    DeviceArray<float> partials(partialCount);
    DeviceArray<uint32_t> arrivals(tileCount);
    fill(arrivals.data(), 0, arrivals.bytes(), stream);
    skinnyPartials_ = std::move(partials);
    skinnyArrivals_ = std::move(arrivals);
  }
  if (path.weights == VARIATOR_CUDA_WEIGHTS_BF16) return;
  const int32_t step = path.weights == VARIATOR_CUDA_WEIGHTS_INT4 ? int4ColumnStep : fp8ColumnStep;
  int32_t widest = 0;
  for (const MatrixRole role : layerRoles) {
    const int32_t columns = matrixOf(role, 0).columns;
    if (columns % step != 0) {
      throw NativeFault("path: matrices of " + std::to_string(columns) + " columns do not fit this format of weights, which takes multiples of " + std::to_string(step));
    }
    widest = std::max(widest, columns);
  }
  std::vector<std::array<Fp8Copy, 4>> fp8;
  std::vector<std::array<Int4Copy, 4>> int4;
  Fp8Copy head, activations;
  int64_t bytes = 0;
  const bool needsFp8 = path.weights == VARIATOR_CUDA_WEIGHTS_E4M3 && fp8_.empty();
  const bool needsInt4 = path.weights == VARIATOR_CUDA_WEIGHTS_INT4 && int4_.empty();
  const bool needsActivations = path.weights == VARIATOR_CUDA_WEIGHTS_E4M3 && usesWgmma(path) && activations_.codes.count() == 0;
  for (int32_t i = 0; i < model_.layerCount; i++) {
    if (needsFp8) fp8.emplace_back();
    if (needsInt4) int4.emplace_back();
    for (size_t role = 0; role < 4; role++) {
      if (needsFp8) {
        fp8.back()[role] = fp8Of(layerRoles[role], i, stream);
        bytes += fp8.back()[role].codes.bytes() + fp8.back()[role].scales.bytes();
      }
      if (needsInt4) {
        int4.back()[role] = int4Of(layerRoles[role], i, stream);
        bytes += int4.back()[role].codes.bytes() + int4.back()[role].scales.bytes();
      }
    }
  }
  const bool needsHead = fp8Head_.codes.count() == 0;
  if (needsHead) {
    head = fp8Of(MatrixRole::Head, 0, stream);
    bytes += head.codes.bytes() + head.scales.bytes();
  }
  if (needsActivations) activations = {DeviceArray<uint8_t>(int64_t{mostTokens_} * widest), DeviceArray<float>(mostTokens_)};
  wait(stream);
  if (needsFp8) fp8_ = std::move(fp8);
  if (needsInt4) int4_ = std::move(int4);
  if (needsHead) fp8Head_ = std::move(head);
  if (needsActivations) activations_ = std::move(activations);
  codeBytes_ += bytes;
}

// So many parts of the depth that their blocks fill the device twice. The number of rows plays no part: whatever batch a row
// is in, up to 64, its sums are cut alike.
int32_t LinearLayers::skinnySplitsOf(const Matrix& matrix, bool isE4m3) const {
  const int64_t tiles = skinnyTileCount(skinnyOf(isE4m3, mostSkinnyRows), matrix.rows);
  const int64_t steps = ceilDivide(matrix.columns, isE4m3 ? 128 : 64);
  const int64_t wanted = 2 * int64_t{multiprocessorCount_} / tiles;
  return static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted, steps / leastSkinnySteps), 1, mostSkinnySplits));
}

void LinearLayers::multiplySkinny(const Fp8Copy* copy, const LinearArguments& a, Stream stream) const {
  SkinnyVariant variant = skinnyOf(copy != nullptr, a.rowCount);
  variant.splits = skinnySplitsOf({a.weight, a.rows, a.columns}, copy != nullptr);
  SkinnyArguments s{};
  s.activations = copy == nullptr ? static_cast<const void*>(a.x) : activations_.codes.data();
  s.weights = copy == nullptr ? static_cast<const void*>(a.weight) : copy->codes.data();
  s.activationScales = copy == nullptr ? nullptr : activations_.scales.data();
  s.weightScales = copy == nullptr ? nullptr : copy->scales.data();
  if (a.take == Take::AsBf16) s.out = static_cast<Bf16*>(a.out);
  else s.floatOut = static_cast<float*>(a.out);
  if (a.take == Take::AddToResidual) s.addend = s.floatOut;
  s.partials = skinnyPartials_.data();
  s.arrivals = skinnyArrivals_.data();
  s.rows = a.rowCount;
  s.columns = a.rows;
  s.depth = a.columns;
  skinnyWgmma(variant, s, stream);
}

int32_t LinearLayers::multiplyByWgmma(const Fp8Copy* copy, const LinearArguments& a, Stream stream) const {
  if (copy != nullptr) quantiseToFp8(a.x, a.rowCount, a.columns, activations_.codes.data(), activations_.scales.data(), stream);
  if (a.rowCount <= mostSkinnyRows) multiplySkinny(copy, a, stream);
  else if (copy == nullptr) runGemm(GemmType::bf16, a.x, nullptr, a.weight, nullptr, a, stream);
  else runGemm(GemmType::e4m3, activations_.codes.data(), activations_.scales.data(), copy->codes.data(), copy->scales.data(), a, stream);
  return copy == nullptr ? 1 : 2;
}

int32_t LinearLayers::multiply(const VariatorCudaPath& path, MatrixRole role, int32_t layer, const Bf16* x, void* out, Take take, int32_t rowCount, Stream stream) const {
  const Matrix matrix = matrixOf(role, layer);
  const LinearArguments a{x, matrix.values, out, take, rowCount, matrix.rows, matrix.columns};
  const bool isMany = usesWgmma(path) && rowCount >= leastWgmmaRows;
  const bool isSkinny = path.linear == VARIATOR_CUDA_LINEAR_SKINNY && rowCount > mostGemvRows && rowCount <= mostSkinnyRows;
  const bool isByWgmma = (isMany || isSkinny) && matrix.rows % 8 == 0;
  if (path.weights == VARIATOR_CUDA_WEIGHTS_INT4 && role != MatrixRole::Head) {
    return multiplyQuantised(path, a, int4_[layer][static_cast<size_t>(role)].matrix(), stream);
  }
  if (path.weights != VARIATOR_CUDA_WEIGHTS_BF16) {
    const Fp8Copy& copy = role == MatrixRole::Head ? fp8Head_ : fp8_[layer][static_cast<size_t>(role)];
    return isByWgmma ? multiplyByWgmma(&copy, a, stream) : multiplyQuantised(path, a, copy.matrix(), stream);
  }
  if (isByWgmma) return multiplyByWgmma(nullptr, a, stream);
  if (path.linear != VARIATOR_CUDA_LINEAR_MMA && rowCount <= mostGemvRows) linearByGemv(a, {path.gemvRowsPerWarp, path.gemvLoads}, stream);
  else if (path.linear == VARIATOR_CUDA_LINEAR_LIBRARY) library_->multiply(a, stream);
  else linearByMma(a, tileOf(path, rowCount), stream);
  return 1;
}

}  // namespace variator::cuda
