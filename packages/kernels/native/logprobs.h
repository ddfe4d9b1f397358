// Log-probabilities of one row of logits: those of the model itself, before any rule, temperature or truncation. Called
// by step.cc.
#pragma once
#include <cstdint>
#include <vector>

namespace variator {

// The log-probability of `token`, then those of the `topCount` likeliest tokens, the likeliest first and the lowest id
// first among equals: topCount + 1 entries into tokenIds and logprobs. `weights` is scratch [vocabularySize]. False where
// the logits are not finite numbers.
bool scoreRow(const float* logits, int64_t vocabularySize, int32_t token, int64_t topCount, std::vector<float>& weights,
              int32_t* tokenIds, float* logprobs);

}  // namespace variator
