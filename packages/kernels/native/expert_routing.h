// Which experts a token passes and with what weights: scores from the router's logits, groups, the best few, their weights.
// Pure; called by experts.cc for one token at a time, in float32 whatever the path's linear variant is.
//
// Scores are a softmax over all experts (Qwen3-MoE) or a sigmoid of each (DeepSeek-V3, arXiv 2412.19437). A bias moves who
// is chosen, never a weight. With groups, only experts of the best groups may be chosen; a group's score is the sum of its
// two best. Among equals the lower index wins. Sums of weights run from the best expert to the worst.
#pragma once
#include <cstdint>
#include <vector>

namespace variator {

struct ExpertShape {
  int64_t expertCount = 0;  // 0: a dense model
  int64_t expertsPerToken = 0;
  int64_t intermediateSize = 0;
  int64_t sharedIntermediateSize = 0;  // 0: no shared experts
  bool isSigmoid = false;              // else a softmax
  int64_t groupCount = 1, groupsPerToken = 1;
  bool isNormalised = false;
  float scale = 1;
};

struct RoutingScratch {
  std::vector<float> scores, choice, groupScores;
  std::vector<uint8_t> isOut, isGroupOut;
};

// `logits` [expertCount]; `bias` [expertCount] or null. Writes expertsPerToken experts and their weights, best first.
// Indices are in range whatever the logits are; weights of logits that are no numbers are none either.
void routeToken(const ExpertShape& shape, const float* logits, const float* bias, RoutingScratch& scratch,
                int32_t* experts, float* weights);

}  // namespace variator
