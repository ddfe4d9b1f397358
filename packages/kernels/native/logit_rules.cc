// Repetition divides a positive logit and multiplies a negative one (Keskar et al., 2019), for every token of prompt and
// answer; frequency and presence subtract, for tokens of the answer alone (OpenAI).
#include "logit_rules.h"

#include <cmath>

namespace variator {

bool applyRules(const LogitRules& rules, int64_t sequence, float* logits) {
  bool hasBans = false;
  for (int32_t i = rules.biasStarts[sequence]; i < rules.biasStarts[sequence + 1]; i++) {
    logits[rules.biasTokenIds[i]] += rules.biases[i];
    hasBans = hasBans || std::isinf(rules.biases[i]);
  }
  const float repetition = rules.repetitionPenalties[sequence];
  const float frequency = rules.frequencyPenalties[sequence];
  const float presence = rules.presencePenalties[sequence];
  for (int32_t i = rules.countStarts[sequence]; i < rules.countStarts[sequence + 1]; i++) {
    float& logit = logits[rules.countedTokenIds[i]];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    const int32_t count = rules.tokenCounts[i];
    if (count > 0) logit -= frequency * static_cast<float>(count) + presence;
  }
  return hasBans;
}

}  // namespace variator
