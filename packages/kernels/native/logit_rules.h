// What a sequence asks of its logits before a token is drawn: biases, bans, penalties of its own tokens. Part of a Step
// (addon_inputs.cc reads it, engine.cc checks it), applied by step.cc to a copy of one row.
#pragma once
#include <cstdint>
#include <vector>

namespace variator {

// Lists of unequal length lie end to end; sequence s has [starts[s], starts[s + 1]).
struct LogitRules {
  std::vector<float> repetitionPenalties;  // [n], 1: off
  std::vector<float> frequencyPenalties;   // [n], 0: off
  std::vector<float> presencePenalties;    // [n], 0: off
  std::vector<int32_t> countStarts;        // [n + 1]
  std::vector<int32_t> countedTokenIds;    // distinct within a sequence
  std::vector<int32_t> tokenCounts;        // times generated; 0: stands in the prompt only
  std::vector<int32_t> biasStarts;         // [n + 1]
  std::vector<int32_t> biasTokenIds;
  std::vector<float> biases;               // added; -infinity: never drawn

  // False where the row can be drawn from as it is.
  bool changesLogits(int64_t sequence) const {
    return countStarts[sequence] < countStarts[sequence + 1] || biasStarts[sequence] < biasStarts[sequence + 1];
  }
};

// Biases, then the penalties of repetition, frequency and presence, in vLLM's order. True where a token is banned.
bool applyRules(const LogitRules& rules, int64_t sequence, float* logits);

}  // namespace variator
