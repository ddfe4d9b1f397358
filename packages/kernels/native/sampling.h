// From logits to a token. Depends on (seed, position, logits) alone; what a sequence's own tokens change in the logits,
// logit_rules.h has changed before. Called by step.cc, one row at a time.
#pragma once
#include <cstdint>
#include <vector>

namespace variator {

struct Sampling {
  float temperature;  // 0: greedy
  float topP;         // 1: off
  int32_t topK;       // 0: off
  float minP;         // 0: off
  bool hasBans;       // some logits are -infinity
  uint64_t seed;
};

// A thread's scratch; each [vocabularySize].
struct SamplingScratch {
  std::vector<float> ruled;  // logits after a sequence's rules
  std::vector<float> weights;
  std::vector<int32_t> candidates;
};

// The token at `position`, or -1 where the logits are not finite numbers (-infinity: a token that is never drawn).
int32_t sampleToken(const float* logits, int64_t vocabularySize, const Sampling& sampling, int64_t position,
                    SamplingScratch& scratch);

}  // namespace variator
