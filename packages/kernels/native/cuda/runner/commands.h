// The runner's commands. Each takes what stands behind its name and returns the exit status: 0 all is well, 1 something is
// wrong, 2 called wrongly.
#pragma once
#include <string>
#include <vector>

namespace variator::cuda {

int runCheck(const std::vector<std::string>& arguments);
// Golden tokens, teacher-forced: how many positions agree, and whether that is enough.
int runGolden(const std::vector<std::string>& arguments);
// That a row has the same bits alone, in a crowd, chunk by chunk, in a graph and outside of one.
int runInvariance(const std::vector<std::string>& arguments);
// Ceilings, then every kernel over its parameters and a model's shapes.
int runTime(const std::vector<std::string>& arguments);
// The kernels of docs/cuda-hopper.md by variants and shapes.
int runTimeHopper(const std::vector<std::string>& arguments);
// Whole decode steps of Llama-3.1-8B's shape with random weights: formats of weights by kernels and batches.
int runTimeStep(const std::vector<std::string>& arguments);

}  // namespace variator::cuda
