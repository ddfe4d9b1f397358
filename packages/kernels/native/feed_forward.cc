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
    const Linear gateUp[2] = {{&matrices.gate, panels ? panels->gate : Panels{}},
                              {&matrices.up, panels ? panels->up : Panels{}}};
    Region region = regionOf(Take::GateUp, gateUp, 2, normed_, 0, step_->tokenCount());
    region.gated = gated;
    multiply(thread, region);
    team_.barrier();
    addToHidden(thread, {&matrices.down, panels ? panels->down : Panels{}}, gated);
    team_.barrier();
  }
  if (!matrices.experts.empty()) {
    passExperts(thread, layer);
    team_.barrier();
  }
}

}  // namespace variator
