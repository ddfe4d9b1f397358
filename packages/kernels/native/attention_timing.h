// How long attention takes under several tunings: what load-time dispatch is chosen by. Runs on Engine's compute thread and
// team, before or between steps, on a cache of its own.
#pragma once
#include <vector>

#include "attention_dispatch.h"
#include "model.h"
#include "step.h"
#include "thread_team.h"

namespace variator {

// So many sequences of a step, each with so many rows behind a context of so many tokens.
struct AttentionShapeOfStep {
  int32_t sequenceCount, rowCount, contextLength;
};

struct AttentionTimes {
  std::vector<float> usPerLayer;      // [shapes, tunings] medians; NaN where there was no time for a sample
  std::vector<int32_t> sampleCounts;  // the same
};

// Times one layer's attention at a time, layer after layer of a cache that is larger than processors keep near, so that keys
// and values come from where they come from in a step; the tunings in random turns. Shape after shape, until each has
// `sampleCount` samples of every tuning; a shape gets half of what is left of `limitMs`, the last one all of it.
AttentionTimes timeAttention(const Model& model, AttentionVariant attention, int64_t splitTokens, StepRunner& runner,
                             ThreadTeam& team, int threadCount, const std::vector<AttentionShapeOfStep>& shapes,
                             const std::vector<AttentionTuning>& tunings, int32_t sampleCount, double limitMs);

}  // namespace variator
