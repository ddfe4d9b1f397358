// How long a model's packed matrices take under several tunings: what load-time dispatch is chosen by. Runs on Engine's
// compute thread and team, before or between steps.
#pragma once
#include <vector>

#include "linear_dispatch.h"
#include "linear_variants.h"
#include "model.h"
#include "packed_model.h"
#include "thread_team.h"

namespace variator {

struct LinearTimes {
  std::vector<float> usPerPanel;     // [shapes, tunings] medians; NaN where there was no time for a sample
  std::vector<int32_t> sampleCounts;  // the same
};

// Moves the values; NaN where there are none.
float medianOf(std::vector<float>& values);

// Walks through the model as a step of `rowCount` rows does, matrix after matrix, so that weights come from where they come
// from in a step. Each matrix is multiplied under one of the tunings, in random turns, and timed from barrier to barrier; until every
// shape has `sampleCount` samples of every tuning, or as many walks or `limitMs` are over.
LinearTimes timeLinears(const Model& model, const PackedModel& packed, const LinearVariant& linear, ThreadTeam& team,
                        int threadCount, int64_t rowCount, const std::vector<LinearTuning>& tunings, int32_t sampleCount,
                        double limitMs);

}  // namespace variator
