// The device's sampler against the CPU engine's own (../../sampling.h): the same token for the same logits, seed and position,
// over random settings, ties and near-greedy temperatures.
#include "../../sampling.h"

#include "../sample.h"
#include "checks.h"

namespace variator::cuda {

void checkSample(CheckRun& run) {
  Random random(run.seed);
  for (const int32_t vocabularySize : {7, 512, 5003}) {
    const int32_t rowCount = 49;
    std::vector<float> logits = random.normals(int64_t{rowCount} * vocabularySize, 2.5f);
    std::vector<float> temperatures, topPs, minPs;
    std::vector<int32_t> topKs, positions;
    std::vector<uint32_t> seeds;
    for (int32_t row = 0; row < rowCount; row++) {
      temperatures.push_back(random.below(6) == 0 ? 0.0f : static_cast<float>(random.uniform()) * 2 + 0.01f);
      topPs.push_back(random.below(2) == 0 ? 1.0f : static_cast<float>(random.uniform()) * 0.99f + 0.005f);
      // Few candidates, so that one too many or too few is drawn soon; or as many as there are tokens.
      topKs.push_back(random.below(2) == 0 ? static_cast<int32_t>(random.below(random.below(3) == 0 ? vocabularySize + 3 : 5)) : 0);
      minPs.push_back(random.below(5) == 0 ? static_cast<float>(random.uniform()) * 0.3f : 0.0f);
      positions.push_back(static_cast<int32_t>(random.below(100000)));
      seeds.push_back(static_cast<uint32_t>(random.bits()));
      seeds.push_back(static_cast<uint32_t>(random.bits()));
      // Ties, as logits of low precision have them.
      if (random.below(2) == 0) {
        for (int32_t i = 0; i < vocabularySize; i++) logits[row * vocabularySize + i] = static_cast<float>(static_cast<int32_t>(logits[row * vocabularySize + i] * 2)) / 2;
      }
    }
    // One row with a logit that is none.
    logits[vocabularySize * (rowCount - 1) + 3] = floatOfBits(0x7fc00000u);
    const auto logitArray = run.upload(logits), temperatureArray = run.upload(temperatures), topPArray = run.upload(topPs), minPArray = run.upload(minPs);
    const auto topKArray = run.upload(topKs), positionArray = run.upload(positions);
    const auto seedArray = run.upload(seeds);
    const auto out = run.poisoned<int32_t>(rowCount);
    sample({logitArray.data(), temperatureArray.data(), topPArray.data(), minPArray.data(), topKArray.data(), seedArray.data(), positionArray.data(),
            out.data(), rowCount, vocabularySize},
           run.stream);
    const auto got = run.download(out);
    SamplingScratch scratch;
    scratch.weights.resize(vocabularySize);
    scratch.candidates.resize(vocabularySize);
    for (int32_t row = 0; row + 1 < rowCount; row++) {
      const Sampling sampling{temperatures[row], topPs[row], topKs[row], minPs[row], false, seeds[2 * row] | static_cast<uint64_t>(seeds[2 * row + 1]) << 32};
      run.same("sample row " + std::to_string(row) + " of " + std::to_string(vocabularySize), got[row],
               sampleToken(logits.data() + row * vocabularySize, vocabularySize, sampling, positions[row], scratch));
    }
    run.same("a logit that is none", got[rowCount - 1], -1);
  }
}

}  // namespace variator::cuda
