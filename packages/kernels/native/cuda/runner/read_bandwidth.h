// What memory gives at best: a kernel that reads a buffer once and nothing else. Used by the runner's `time` as a ceiling.
#pragma once
#include <cstdint>

#include "../gpu.h"

namespace variator::cuda {

// `out` [1] receives what keeps the reads from being left out.
void readAll(const void* from, int64_t bytes, uint32_t* out, uint32_t blocks, Stream stream);
// A kernel that does nothing, for the gap between launches.
void doNothing(Stream stream);

}  // namespace variator::cuda
