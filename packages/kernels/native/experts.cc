// The experts of a layer (mixture of experts), part of StepRunner, called by feed_forward.cc. A step's tokens are sorted by
// expert, so that the weights of each chosen expert are read once a step, whoever shares it; experts that no token chose
// are not touched. Panels are shared among threads, never a part of a sum.
//
// A row's bits do not depend on the rows beside it: its experts are chosen from its own logits (expert_routing.h), and
// what they give is added to its hidden state one after the other, from the lowest expert to the highest.
#include <algorithm>
#include <cstring>

#include "step.h"

namespace variator {

void StepRunner::passExperts(int thread, int64_t layer) {
  routeRows(thread, layer);
  team_.barrier();
  if (thread == 0) sortByExpert();
  team_.barrier();
  gatherRows(thread);
  team_.barrier();
  multiplyExpertsGateUp(thread, layer);
  team_.barrier();
  multiplyExpertsDown(thread, layer);
}

// The router is computed in float32 on every path: a rounded logit may choose another expert.
void StepRunner::routeRows(int thread, int64_t layer) {
  const Tensor& router = model_.matrices[layer].router;
  const std::vector<float>& bias = model_.vectors[layer].routerBias;
  const ExpertShape& shape = model_.shape.experts;
  ThreadScratch& scratch = threads_[thread];
  float* out = scratch.panels.sized(mostSlabRows * panelRows);
  float* weightRows = scratch.weightRows.sized(4 * normed_.stride);
  const int64_t stride = padded(shape.expertCount);
  const Share share = shareOf(step_->tokenCount(), thread, step_->threadCount);
  for (int64_t start = share.begin; start < share.end; start += mostSlabRows) {
    const int64_t count = std::min<int64_t>(mostSlabRows, share.end - start);
    for (int64_t panel = 0; panel < panelCountOf(router); panel++) {
      floatOps().linearPanel(router, normed_, panel, start, count, weightRows, out);
      for (int64_t m = 0; m < count; m++) {
        std::copy(out + m * 32, out + m * 32 + 32, routerLogits_ + (start + m) * stride + panel * 32);
      }
    }
  }
  for (int64_t row = share.begin; row < share.end; row++) {
    const int64_t first = row * shape.expertsPerToken;
    routeToken(shape, routerLogits_ + row * stride, bias.empty() ? nullptr : bias.data(), scratch.routing,
               byExpert_.chosen.data() + first, byExpert_.chosenWeights.data() + first);
  }
}

// By counting: entries lie from the lowest expert to the highest, within one from the lowest row to the highest.
void StepRunner::sortByExpert() {
  const ExpertShape& shape = model_.shape.experts;
  RowsByExpert& by = byExpert_;
  by.starts.assign(shape.expertCount + 1, 0);
  for (const int32_t expert : by.chosen) by.starts[expert + 1]++;
  by.busy.clear();
  for (int64_t expert = 0; expert < shape.expertCount; expert++) {
    if (by.starts[expert + 1] > 0) by.busy.push_back(static_cast<int32_t>(expert));
    by.starts[expert + 1] += by.starts[expert];
  }
  by.next.assign(by.starts.begin(), by.starts.end() - 1);
  for (size_t i = 0; i < by.chosen.size(); i++) {
    const int32_t entry = by.next[by.chosen[i]]++;
    by.rows[entry] = static_cast<int32_t>(static_cast<int64_t>(i) / shape.expertsPerToken);
    by.weights[entry] = by.chosenWeights[i];
  }
}

void StepRunner::gatherRows(int thread) {
  const int64_t stride = normed_.stride, groups = stride / 32;
  const Share share = shareOf(static_cast<int64_t>(byExpert_.rows.size()), thread, step_->threadCount);
  for (int64_t entry = share.begin; entry < share.end; entry++) {
    const int64_t row = byExpert_.rows[entry];
    if (!isPacked()) {
      std::memcpy(routed_.values + entry * stride, normed_.values + row * stride, stride * sizeof(float));
      continue;
    }
    if (step_->linear.family == LinearFamily::Bf16) {
      std::memcpy(routed_.bf16 + entry * stride, normed_.bf16 + row * stride, stride * sizeof(uint16_t));
      continue;
    }
    std::memcpy(routed_.codes + entry * stride, normed_.codes + row * stride, stride);
    std::memcpy(routed_.scales + entry * groups, normed_.scales + row * groups, groups * sizeof(float));
    std::memcpy(routed_.scaledSums + entry * groups, normed_.scaledSums + row * groups, groups * sizeof(float));
    if (step_->linear.family != LinearFamily::Int8Residual) continue;
    std::memcpy(routed_.restCodes + entry * stride, normed_.restCodes + row * stride, stride);
    std::memcpy(routed_.restScales + entry * groups, normed_.restScales + row * groups, groups * sizeof(float));
    std::memcpy(routed_.restScaledSums + entry * groups, normed_.restScaledSums + row * groups, groups * sizeof(float));
  }
}

// Panels of one expert after the other, taken as threads become free: who computes one changes nothing in it.
void StepRunner::multiplyExpertsGateUp(int thread, int64_t layer) {
  const int64_t panelCount = (model_.shape.experts.intermediateSize + panelRows - 1) / panelRows;
  const auto unitCount = static_cast<int64_t>(byExpert_.busy.size()) * panelCount;
  for (;;) {
    const int64_t unit = nextExpertUnits_[layer].fetch_add(1, std::memory_order_relaxed);
    if (unit >= unitCount) return;
    const int32_t expert = byExpert_.busy[unit / panelCount];
    const Linear gateUp[2] = {expertLinear(layer, expert, &MlpMatrices<Tensor>::gate, &MlpMatrices<Panels>::gate),
                              expertLinear(layer, expert, &MlpMatrices<Tensor>::up, &MlpMatrices<Panels>::up)};
    const int64_t first = byExpert_.starts[expert];
    Region region = regionOf(Take::GateUp, gateUp, 2, routed_, first, byExpert_.starts[expert + 1] - first);
    region.gated = routedGated_;
    walkRegion(thread, region, 0, unit % panelCount, unit % panelCount + 1);
  }
}

// A thread has its panels of the hidden state to itself, and takes the experts in their order.
void StepRunner::multiplyExpertsDown(int thread, int64_t layer) {
  const int64_t stride = padded(model_.shape.hiddenSize);
  ThreadScratch& scratch = threads_[thread];
  float* out = scratch.panels.sized(mostSlabRows * panelRows);
  const Share share = shareOf(stride / panelRows, thread, step_->threadCount);
  for (const int32_t expert : byExpert_.busy) {
    const Linear down = expertLinear(layer, expert, &MlpMatrices<Tensor>::down, &MlpMatrices<Panels>::down);
    const int64_t first = byExpert_.starts[expert], rowCount = byExpert_.starts[expert + 1] - first;
    const LinearTuning tuning = tuningOf(down, rowCount);
    walkPanels(share.begin, share.end, first, rowCount, tuning, [&](int64_t panel, int64_t start, int64_t count) {
      multiplyPanel(step_->linear, down, routedGated_, panel, start, count, tuning, scratch, out);
      for (int64_t m = 0; m < count; m++) {
        floatOps().addScaled(out + m * 32, 32, byExpert_.weights[start + m],
                             hidden_ + byExpert_.rows[start + m] * stride + panel * 32);
      }
    });
  }
}

StepRunner::Linear StepRunner::expertLinear(int64_t layer, int32_t expert, Tensor MlpMatrices<Tensor>::*tensor,
                                            Panels MlpMatrices<Panels>::*panels) const {
  return {&(model_.matrices[layer].experts[expert].*tensor),
          packed_ ? packed_->matrices[layer].experts[expert].*panels : Panels{}};
}

}  // namespace variator
