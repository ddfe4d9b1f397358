// log softmax as logit - most - log(sum of e^(logit - most)): the exponentials in float32, their sum in float64 in the
// order of the vocabulary, so that a row's bits depend on the row alone.
#include "logprobs.h"

#include <cmath>

#include "float_ops.h"

namespace variator {

bool scoreRow(const float* logits, int64_t vocabularySize, int32_t token, int64_t topCount, std::vector<float>& weights,
              int32_t* tokenIds, float* logprobs) {
  const float most = floatOps().mostOf(logits, vocabularySize);
  if (!std::isfinite(most)) return false;
  floatOps().exponentials(logits, vocabularySize, most, 1.0f, weights.data());
  double sum = 0;
  for (int64_t i = 0; i < vocabularySize; i++) sum += weights[i];
  if (!std::isfinite(sum)) return false;
  const double normaliser = static_cast<double>(most) + std::log(sum);
  const auto logprobOf = [&](int32_t id) { return static_cast<float>(static_cast<double>(logits[id]) - normaliser); };
  tokenIds[0] = token;
  logprobs[0] = logprobOf(token);

  // Kept in order while the row is walked upwards: a later token goes before another only where it is strictly likelier.
  int32_t* const top = tokenIds + 1;
  int64_t count = 0;
  for (int64_t i = 0; i < vocabularySize; i++) {
    if (count == topCount && (count == 0 || !(logits[i] > logits[top[count - 1]]))) continue;
    int64_t place = count < topCount ? count++ : count - 1;
    for (; place > 0 && logits[i] > logits[top[place - 1]]; place--) top[place] = top[place - 1];
    top[place] = static_cast<int32_t>(i);
  }
  for (int64_t i = 0; i < topCount; i++) logprobs[1 + i] = logprobOf(top[i]);
  return true;
}

}  // namespace variator
