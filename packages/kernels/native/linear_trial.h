// One linear layer by itself, so that tests can hold every variant to the reference on any shape. No part of a step.
#pragma once
#include <vector>

#include "linear_dispatch.h"
#include "linear_variants.h"

namespace variator {

// x [rowCount, columns] times the matrix: [rowCount, rows].
std::vector<float> multiplyAlone(const Tensor& tensor, const LinearVariant& linear, const std::vector<float>& x,
                                 int64_t rowCount, const LinearTuning& tuning);

}  // namespace variator
