// See expert_routing.h.
#include "expert_routing.h"

#include <algorithm>

#include "float_ops.h"

namespace variator {
namespace {

// The first of the largest values that are not out; there must be one.
int64_t bestOf(const std::vector<float>& values, const std::vector<uint8_t>& isOut) {
  int64_t best = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); i++) {
    if (isOut[i] == 0 && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

void softmax(const float* logits, std::vector<float>& scores) {
  const auto count = static_cast<int64_t>(scores.size());
  floatOps().exponentials(logits, count, floatOps().mostOf(logits, count), 1, scores.data());
  float sum = 0;
  for (const float score : scores) sum += score;
  for (float& score : scores) score /= sum;
}

void sigmoid(const float* logits, std::vector<float>& scores) {
  floatOps().exponentials(logits, static_cast<int64_t>(scores.size()), 0, -1, scores.data());
  for (float& score : scores) score = 1.0f / (1.0f + score);
}

// Puts the experts of all but the best groups out.
void keepBestGroups(const ExpertShape& shape, RoutingScratch& scratch) {
  const int64_t size = shape.expertCount / shape.groupCount;
  scratch.groupScores.resize(shape.groupCount);
  for (int64_t group = 0; group < shape.groupCount; group++) {
    const float* scores = scratch.choice.data() + group * size;
    float first = scores[0], second = 0;
    for (int64_t i = 1; i < size; i++) {
      if (scores[i] > first) {
        second = first;
        first = scores[i];
      } else if (i == 1 || scores[i] > second) {
        second = scores[i];
      }
    }
    scratch.groupScores[group] = first + second;
  }
  scratch.isGroupOut.assign(shape.groupCount, 0);
  std::fill(scratch.isOut.begin(), scratch.isOut.end(), uint8_t{1});
  for (int64_t i = 0; i < shape.groupsPerToken; i++) {
    const int64_t group = bestOf(scratch.groupScores, scratch.isGroupOut);
    scratch.isGroupOut[group] = 1;
    std::fill_n(scratch.isOut.begin() + group * size, size, uint8_t{0});
  }
}

}  // namespace

void routeToken(const ExpertShape& shape, const float* logits, const float* bias, RoutingScratch& scratch,
                int32_t* experts, float* weights) {
  scratch.scores.resize(shape.expertCount);
  if (shape.isSigmoid) sigmoid(logits, scratch.scores);
  else softmax(logits, scratch.scores);
  scratch.choice = scratch.scores;
  if (bias != nullptr) {
    for (int64_t i = 0; i < shape.expertCount; i++) scratch.choice[i] += bias[i];
  }
  scratch.isOut.assign(shape.expertCount, 0);
  if (shape.groupsPerToken < shape.groupCount) keepBestGroups(shape, scratch);
  float sum = 0;
  for (int64_t i = 0; i < shape.expertsPerToken; i++) {
    const int64_t expert = bestOf(scratch.choice, scratch.isOut);
    scratch.isOut[expert] = 1;
    experts[i] = static_cast<int32_t>(expert);
    weights[i] = scratch.scores[expert];
    sum += weights[i];
  }
  for (int64_t i = 0; i < shape.expertsPerToken; i++) {
    if (shape.isNormalised) weights[i] /= sum + 1e-20f;  // sigmoids may all be 0
    weights[i] *= shape.scale;
  }
}

}  // namespace variator
