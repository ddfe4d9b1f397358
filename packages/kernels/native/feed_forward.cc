// The second half of a layer: the MLP that every token passes (or its shared experts as one), then the experts of each.
// Part of StepRunner, on the road of step.cc.
#include <algorithm>

#include "step.h"

namespace variator {

void StepRunner::feedForward(int thread, int64_t layer) {
  const auto& matrices = model_.matrices[layer];
  if (matrices.gate.rows > 0) {
    const auto* panels = packed_ ? &packed_->matrices[layer] : nullptr;
    Activations gated = gated_;
    gated.stride = padded(matrices.gate.rows);
    multiplyGateUp(thread, {&matrices.gate, panels ? panels->gate : Panels{}},
                   {&matrices.up, panels ? panels->up : Panels{}}, gated);
    team_.barrier();
    const Linear down{&matrices.down, panels ? panels->down : Panels{}};
    multiply(thread, &down, 1, gated, step_->tokenCount(),
             [&](int, int64_t panel, int64_t rowStart, int64_t rowCount, const float* out) {
               addToHidden(panel, rowStart, rowCount, out);
             });
    team_.barrier();
  }
  if (!matrices.experts.empty()) {
    passExperts(thread, layer);
    team_.barrier();
  }
}

// Gate and up by the same panel, so that SwiGLU (and the rounding of its 32 results) needs no region of its own.
void StepRunner::multiplyGateUp(int thread, const Linear& gate, const Linear& up, const Activations& gated) {
  const Share share = shareOf(panelCountOf(*gate.tensor), thread, step_->threadCount);
  gateUpPanels(thread, gate, up, normed_, share, {0, step_->tokenCount()}, gated);
}

void StepRunner::gateUpPanels(int thread, const Linear& gate, const Linear& up, const Activations& rows, Share panels,
                              Share rowShare, const Activations& gated) {
  ThreadScratch& scratch = threads_[thread];
  float* gateOut = scratch.panels.sized(2 * mostSlabRows * panelRows);
  float* upOut = gateOut + mostSlabRows * panelRows;
  const int64_t rowCount = rowShare.end - rowShare.begin;
  const LinearTuning tuning = tuningOf(gate, rowCount);
  walkPanels(panels.begin, panels.end, rowShare.begin, rowCount, tuning, [&](int64_t panel, int64_t start, int64_t count) {
    multiplyPanel(gate, rows, panel, start, count, tuning, scratch, gateOut);
    multiplyPanel(up, rows, panel, start, count, tuning, scratch, upOut);
    for (int64_t m = 0; m < count; m++) {
      const int64_t row = start + m, column = row * gated.stride + panel * 32;
      floatOps().swiGlu(gateOut + m * 32, upOut + m * 32, 32, gated.values + column);
      if (isPacked()) roundGroups(gated, row, panel, 1);
    }
  });
}

}  // namespace variator
