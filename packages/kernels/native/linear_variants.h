// The linear variants by name: a family (what the weights are packed as, and so the bits) and the instructions it runs
// on. Read by engine.cc (what to pack) and step.cc (what to multiply with); catalogue.ts describes the same names.
#pragma once
#include <string>

#include "panels.h"

namespace variator {

// Int8Residual multiplies with what the codes of activations leave over, too.
enum class LinearFamily { Reference, Int8, Int4, Int4Rounded, Int8Residual, Bf16 };
// The family whose packed matrices it reads.
LinearFamily packingOf(LinearFamily family);
// What the matrices of a layer are packed as, and the LM head, whose rounding would cost the most.
PanelWidth panelWidthOf(LinearFamily family);
PanelWidth headWidthOf(LinearFamily family);

struct LinearVariant {
  LinearFamily family = LinearFamily::Reference;
  const PanelKernels* kernels = nullptr;  // null for the reference, which reads the tensors themselves
};

// Throws NativeFault for a name that is none, or a variant that this machine cannot run.
LinearVariant parseLinear(const std::string& name);

}  // namespace variator
