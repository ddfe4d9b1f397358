// Checks and maps a model's tensors. Called by addon.cc (openModel).
#include "model.h"

#include <algorithm>
#include <cmath>

#include "float_ops.h"
#include "native_fault.h"

namespace variator {
namespace {

void checkExperts(const ExpertShape& experts) {
  const auto check = [](bool isGood, const char* what) {
    if (!isGood) throw NativeFault(std::string("experts: ") + what);
  };
  check(experts.expertCount % experts.groupCount == 0, "expertCount must be a multiple of groupCount");
  check(experts.groupsPerToken <= experts.groupCount, "groupsPerToken must be at most groupCount");
  check(experts.expertsPerToken <= experts.expertCount / experts.groupCount * experts.groupsPerToken,
        "expertsPerToken must be at most the experts of groupsPerToken groups");
  check(experts.scale > 0 && experts.scale <= 1e6f, "scale must be from 0 to 1000000");
}

const MappedFile& fileOf(Model& model, const std::string& path) {
  for (size_t i = 0; i < model.paths.size(); i++) {
    if (model.paths[i] == path) return *model.files[i];
  }
  model.files.push_back(std::make_unique<MappedFile>(path));
  model.paths.push_back(path);
  return *model.files.back();
}

}  // namespace

void checkShape(const ModelShape& shape) {
  const auto check = [](bool isGood, const char* what) {
    if (!isGood) throw NativeFault(std::string("shape: ") + what);
  };
  check(shape.headSize % 2 == 0, "headSize must be even");
  check(std::max({shape.headSize, shape.valueHeadSize(), shape.cachedKeySize(), shape.cachedValueSize()}) <= 1024, "heads must have at most 1024 dimensions");
  check(shape.headCount % shape.kvHeadCount == 0, "headCount must be a multiple of kvHeadCount");
  check(static_cast<int64_t>(shape.ropeInverseFrequencies.size()) == shape.ropeSize() / 2,
        "ropeInverseFrequencies must hold a number for each rotated pair of a head");
  for (const float frequency : shape.ropeInverseFrequencies) {
    check(frequency >= 0 && std::isfinite(frequency), "ropeInverseFrequencies must be numbers from 0");
  }
  check(shape.ropeAttentionFactor > 0 && shape.ropeAttentionFactor <= 100, "ropeAttentionFactor must be from 0 to 100");
  check(static_cast<int64_t>(shape.windowTokens.size()) == shape.layerCount, "windowTokens must hold a number for each layer");
  for (const int32_t window : shape.windowTokens) check(window >= 0, "windowTokens must be 0 or more");
  check(shape.rmsNormEpsilon >= 0 && shape.rmsNormEpsilon < 1, "rmsNormEpsilon must be from 0 to 1");
  if (shape.experts.expertCount > 0) checkExperts(shape.experts);
  if (!shape.hasLatents()) return;
  check(shape.kvHeadCount == shape.headCount, "kvHeadCount must be headCount with latents");
  check(shape.latent.ropeSize % 2 == 0 && shape.latent.ropeSize < shape.headSize, "ropeSize must be even and below headSize");
  check(shape.latent.scoreFactor > 0 && shape.latent.scoreFactor <= 1e4f, "scoreFactor must be from 0 to 10000");
}

Tensor mapTensor(Model& model, const TensorSource& source, int64_t rows, int64_t columns) {
  const auto fail = [&](const std::string& fault) { throw NativeFault(source.name + " in " + source.file + ": " + fault); };
  const auto shapeText = [](int64_t r, int64_t c) { return "[" + std::to_string(r) + ", " + std::to_string(c) + "]"; };
  if (source.rows != rows || source.columns != columns) {
    fail("is " + shapeText(source.rows, source.columns) + ", but the shape needs " + shapeText(rows, columns));
  }
  Tensor tensor;
  try {
    tensor.dtype = parseDtype(source.dtype);
    tensor.rowBytes = rowBytesOf(tensor.dtype, columns);
  } catch (const NativeFault& fault) {
    throw NativeFault(source.name + " in " + source.file + ": " + fault.what());
  }
  tensor.rows = rows;
  tensor.columns = columns;
  if (source.byteLength != rows * tensor.rowBytes) {
    fail("has " + std::to_string(source.byteLength) + " bytes, but " + shapeText(rows, columns) + " of " + source.dtype +
         " needs " + std::to_string(rows * tensor.rowBytes));
  }
  const MappedFile& file = fileOf(model, source.file);
  if (source.offset > file.size() - source.byteLength) {
    fail("ends beyond the file, which has " + std::to_string(file.size()) + " bytes");
  }
  tensor.data = file.data() + source.offset;
  return tensor;
}

std::vector<float> readVector(Model& model, const TensorSource& source, int64_t size) {
  const Tensor tensor = mapTensor(model, source, 1, size);
  std::vector<float> values(static_cast<size_t>((size + 31) / 32 * 32));
  floatOps().dequantiseRow(tensor.data, tensor.dtype, size, values.data());
  values.resize(static_cast<size_t>(size));
  return values;
}

void listLinearShapes(Model& model) {
  const auto name = [&](Tensor& tensor) {
    if (tensor.rows == 0) return;
    auto& shapes = model.linearShapes;
    const auto known = std::find_if(shapes.begin(), shapes.end(), [&](const LinearShape& shape) {
      return shape.rows == tensor.rows && shape.columns == tensor.columns;
    });
    tensor.linearShape = static_cast<int32_t>(known - shapes.begin());
    if (known == shapes.end()) shapes.push_back({tensor.rows, tensor.columns});
  };
  for (auto& layer : model.matrices) visitMatrices(layer, name);
  name(model.head);
}

void absorbKeyValueUp(Model& model, LayerMatrices<Tensor>& matrices) {
  const ModelShape& shape = model.shape;
  const int64_t rank = shape.latent.keyValueRank, own = shape.ownKeySize(), size = shape.latent.valueHeadSize;
  const Tensor& up = matrices.keyValueUp;
  std::vector<float> values(static_cast<size_t>(shape.headCount * rank * own));
  std::vector<float> row(static_cast<size_t>((rank + 31) / 32 * 32));
  for (int64_t head = 0; head < shape.headCount; head++) {
    float* transposed = values.data() + head * rank * own;
    for (int64_t d = 0; d < own; d++) {
      floatOps().dequantiseRow(up.row(head * shape.upHeadSize() + d), up.dtype, rank, row.data());
      for (int64_t r = 0; r < rank; r++) transposed[r * own + d] = row[r];
    }
    Tensor keyUp, valueUp = up;
    keyUp.data = reinterpret_cast<const uint8_t*>(transposed);
    keyUp.rows = rank;
    keyUp.columns = own;
    keyUp.rowBytes = rowBytesOf(Dtype::F32, own);
    valueUp.data = up.row(head * shape.upHeadSize() + own);
    valueUp.rows = size;
    matrices.keyUpTransposed.push_back(keyUp);
    matrices.valueUp.push_back(valueUp);
  }
  model.transposed.push_back(std::move(values));
  matrices.keyValueUp = Tensor{};
}

}  // namespace variator
