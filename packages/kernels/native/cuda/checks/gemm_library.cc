// Products by cuBLASLt against double precision, eagerly and by a graph, where it is installed; where it is not, that it is
// refused in words.
#include "../gemm_library.h"

#include <cmath>

#include "../../native_fault.h"
#include "checks.h"

namespace variator::cuda {

void checkGemmLibrary(CheckRun& run) {
  if (!GemmLibrary::isThere()) {
    std::string words;
    try {
      const GemmLibrary library;
    } catch (const NativeFault& fault) {
      words = fault.what();
    }
    run.same("refused in words, not: " + words, words.find("cuBLASLt is not to be found (libcublasLt.so.13") == 0, 1);
    return;
  }
  GemmLibrary library;
  Random random(run.seed);
  const struct {
    int32_t rowCount, rows, columns;
  } sizes[] = {{9, 40, 72}, {1, 24, 8}, {33, 7, 136}, {130, 64, 264}};
  for (const auto& [rowCount, rows, columns] : sizes) {
    const auto x = random.bf16s(int64_t{rowCount} * columns), weight = random.bf16s(int64_t{rows} * columns);
    const int64_t count = int64_t{rowCount} * rows;
    const auto before = random.normals(count);
    const auto xArray = run.upload(x), weightArray = run.upload(weight);
    const auto halves = run.poisoned<Bf16>(count);
    const auto floats = run.poisoned<float>(count);
    const auto sums = run.upload(before);
    const auto of = [&](Take take, void* out) { return LinearArguments{xArray.data(), weightArray.data(), out, take, rowCount, rows, columns}; };
    library.multiply(of(Take::AsBf16, halves.data()), run.stream);
    library.multiply(of(Take::AddToResidual, sums.data()), run.stream);
    wait(run.stream);
    beginCapture(run.stream);
    library.multiply(of(Take::AsFloat, floats.data()), run.stream);
    const Graph graph = endCapture(run.stream);
    replay(graph, run.stream);
    wait(run.stream);
    destroyGraph(graph);
    const auto gotHalves = run.download(halves);
    const auto gotFloats = run.download(floats), gotSums = run.download(sums);
    for (int64_t m = 0; m < rowCount; m++) {
      for (int64_t r = 0; r < rows; r++) {
        double want = 0, size = 0;
        for (int64_t k = 0; k < columns; k++) {
          const double term = static_cast<double>(toFloat(x[m * columns + k])) * toFloat(weight[r * columns + k]);
          want += term;
          size += std::abs(term);
        }
        const int64_t at = m * rows + r;
        run.near("cuBLASLt", gotFloats[at], want, 0, 4e-6 * size + 1e-30);
        run.near("cuBLASLt, added", gotSums[at], want + before[at], 1e-6, 4e-6 * size + 1e-6);
        run.near("cuBLASLt, as bf16", toFloat(gotHalves[at]), want, 0.004, 4e-6 * size);
      }
    }
  }
}

}  // namespace variator::cuda
