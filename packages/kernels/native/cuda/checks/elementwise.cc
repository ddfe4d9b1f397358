// embed, rotaryAngles, rotateAndAppend and swiGlu against double precision.
#include "../elementwise.h"

#include <cmath>
#include <set>

#include "checks.h"

namespace variator::cuda {
namespace {

void checkEmbed(CheckRun& run, int32_t tokenCount, int32_t hiddenSize) {
  Random random(run.seed);
  const int32_t vocabularySize = 37;
  const auto embedding = random.bf16s(int64_t{vocabularySize} * hiddenSize);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < tokenCount; i++) tokens.push_back(static_cast<int32_t>(random.below(vocabularySize)));
  tokens.back() = vocabularySize - 1;
  const auto embeddingArray = run.upload(embedding);
  const auto tokenArray = run.upload(tokens);
  const auto residual = run.poisoned<float>(int64_t{tokenCount} * hiddenSize);
  embed({embeddingArray.data(), tokenArray.data(), residual.data(), tokenCount, hiddenSize}, run.stream);
  std::vector<float> want;
  for (const int32_t token : tokens) {
    for (int32_t k = 0; k < hiddenSize; k++) want.push_back(toFloat(embedding[int64_t{token} * hiddenSize + k]));
  }
  run.sameBytes("embed", run.download(residual), want);
}

void checkRotate(CheckRun& run, int32_t headCount, int32_t kvHeadCount, int32_t headSize, bool hasBias, bool hasNorm, bool isInterleaved) {
  Random random(run.seed + static_cast<uint64_t>(headSize));
  const int32_t tokenCount = 5, half = headSize / 2, blockCount = 7, width = (headCount + 2 * kvHeadCount) * headSize;
  const auto qkv = random.bf16s(int64_t{tokenCount} * width);
  const auto bias = random.normals(width), queryNorm = random.normals(headSize), keyNorm = random.normals(headSize);
  std::vector<int32_t> positions, slots;
  std::set<int32_t> used;
  for (int32_t i = 0; i < tokenCount; i++) {
    positions.push_back(static_cast<int32_t>(random.below(2000)));
    int32_t slot = 0;
    do slot = static_cast<int32_t>(random.below(blockCount * kvBlockTokens));
    while (!used.insert(slot).second);
    slots.push_back(i == 2 ? -1 : slot);
  }
  std::vector<float> frequencies;
  for (int32_t i = 0; i < half; i++) frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(headSize)));
  const float factor = 1.25f, epsilon = 1e-6f;

  const auto positionArray = run.upload(positions), slotArray = run.upload(slots);
  const auto frequencyArray = run.upload(frequencies);
  const auto cosines = run.poisoned<float>(tokenCount * half), sines = run.poisoned<float>(tokenCount * half);
  rotaryAngles({positionArray.data(), frequencyArray.data(), cosines.data(), sines.data(), tokenCount, half, factor}, run.stream);
  const auto qkvArray = run.upload(qkv);
  const auto biasArray = run.upload(bias), queryNormArray = run.upload(queryNorm), keyNormArray = run.upload(keyNorm);
  const int64_t kvSize = int64_t{blockCount} * kvHeadCount * kvBlockTokens * headSize;
  const auto keys = run.poisoned<Bf16>(kvSize), values = run.poisoned<Bf16>(kvSize);
  rotateAndAppend({qkvArray.data(), hasBias ? biasArray.data() : nullptr, hasNorm ? queryNormArray.data() : nullptr,
                   hasNorm ? keyNormArray.data() : nullptr, cosines.data(), sines.data(), slotArray.data(),
                   {keys.data(), values.data()}, tokenCount, headCount, kvHeadCount, headSize, isInterleaved, epsilon},
                  run.stream);
  const auto gotQkv = run.download(qkvArray), gotKeys = run.download(keys), gotValues = run.download(values);

  int64_t untouchedCount = 0;
  for (const Bf16 key : gotKeys) untouchedCount += key.bits == 0xffff ? 1 : 0;
  run.same("keys left alone", untouchedCount, kvSize - int64_t{tokenCount - 1} * kvHeadCount * headSize);
  for (int32_t token = 0; token < tokenCount; token++) {
    if (slots[token] < 0) continue;
    for (int32_t head = 0; head < headCount + 2 * kvHeadCount; head++) {
      const bool isQuery = head < headCount, isValue = head >= headCount + kvHeadCount;
      std::vector<double> x(headSize);
      double squares = 0;
      for (int32_t k = 0; k < headSize; k++) {
        x[k] = static_cast<double>(toFloat(qkv[int64_t{token} * width + head * headSize + k])) + (hasBias ? bias[head * headSize + k] : 0.0f);
        squares += x[k] * x[k];
      }
      if (hasNorm && !isValue) {
        for (int32_t k = 0; k < headSize; k++) x[k] *= (isQuery ? queryNorm : keyNorm)[k] / std::sqrt(squares / headSize + epsilon);
      }
      auto want = x;
      for (int32_t pair = 0; pair < half && !isValue; pair++) {
        const int32_t first = isInterleaved ? 2 * pair : pair, second = isInterleaved ? 2 * pair + 1 : pair + half;
        const double angle = static_cast<float>(positions[token]) * frequencies[pair];
        want[first] = (x[first] * std::cos(angle) - x[second] * std::sin(angle)) * factor;
        want[second] = (x[second] * std::cos(angle) + x[first] * std::sin(angle)) * factor;
      }
      for (int32_t k = 0; k < headSize; k++) {
        float got;
        if (isQuery) {
          got = toFloat(gotQkv[int64_t{token} * width + head * headSize + k]);
        } else {
          const int32_t kvHead = isValue ? head - headCount - kvHeadCount : head - headCount;
          const int64_t block = slots[token] / kvBlockTokens, place = slots[token] % kvBlockTokens;
          got = toFloat((isValue ? gotValues : gotKeys)[((block * kvHeadCount + kvHead) * kvBlockTokens + place) * headSize + k]);
        }
        run.near("rotateAndAppend", got, want[k], 0.004, 2e-3);
      }
    }
  }
}

void checkSwiGlu(CheckRun& run, int32_t tokenCount, int32_t size) {
  Random random(run.seed);
  const auto gateUp = random.bf16s(int64_t{tokenCount} * 2 * size, 3);
  const auto gateUpArray = run.upload(gateUp);
  const auto out = run.poisoned<Bf16>(int64_t{tokenCount} * size);
  swiGlu({gateUpArray.data(), out.data(), tokenCount, size}, run.stream);
  const auto got = run.download(out);
  for (int32_t row = 0; row < tokenCount; row++) {
    for (int32_t k = 0; k < size; k++) {
      const double gate = toFloat(gateUp[int64_t{row} * 2 * size + k]), up = toFloat(gateUp[int64_t{row} * 2 * size + size + k]);
      run.near("swiGlu", toFloat(got[row * size + k]), gate / (1 + std::exp(-gate)) * up, 0.0041, 1e-6);
    }
  }
}

}  // namespace

void checkElementwise(CheckRun& run) {
  checkEmbed(run, 1, 8);
  checkEmbed(run, 7, 96);
  checkEmbed(run, 3, 2056);
  checkRotate(run, 6, 2, 16, true, false, false);
  checkRotate(run, 4, 4, 32, false, true, false);
  checkRotate(run, 3, 1, 96, true, true, true);
  checkRotate(run, 2, 2, 128, false, false, true);
  checkRotate(run, 1, 1, 256, false, true, false);
  checkSwiGlu(run, 1, 8);
  checkSwiGlu(run, 5, 264);
  checkSwiGlu(run, 2, 1096);
}

}  // namespace variator::cuda
