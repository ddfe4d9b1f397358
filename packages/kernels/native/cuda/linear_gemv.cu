// linearByGemv of linear.h. A warp takes some rows of the matrix, each lane every 32nd group of 8 columns, with `loads`
// groups of each row under way at once; the rows of x come from the caches. Order of a sum: a lane's groups upwards, in a
// group its columns upwards, then lanes by butterflies; so neither parameter nor the rows beside it change a bit.
#include "../native_fault.h"
#include "block_sums.cuh"
#include "linear_take.cuh"

namespace variator::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps;

template <int xRows, int rowsPerWarp, int loads>
KERNEL(threads)
void multiplyRows(const LinearArguments a) {
  const int64_t firstRow = (int64_t{blockIndex().x} * warps + warp()) * rowsPerWarp;
  if (firstRow >= a.rows) return;
  const int groupCount = a.columns / 8;
  float sums[xRows][rowsPerWarp] = {};
  for (int first = static_cast<int>(lane()); first < groupCount; first += 32 * loads) {
    Bytes16 weights[loads][rowsPerWarp];
#pragma unroll
    for (int l = 0; l < loads; l++) {
#pragma unroll
      for (int r = 0; r < rowsPerWarp; r++) {
        weights[l][r] = Bytes16{{0, 0, 0, 0}};
        const int group = first + 32 * l;
        if (group < groupCount && firstRow + r < a.rows) weights[l][r] = loadOnce16(a.weight + (firstRow + r) * a.columns + group * 8);
      }
    }
#pragma unroll
    for (int l = 0; l < loads; l++) {
      const int group = first + 32 * l;
      if (group >= groupCount) break;
#pragma unroll
      for (int m = 0; m < xRows; m++) {
        if (m >= a.rowCount) break;
        const Bytes16 x = load16(a.x + static_cast<int64_t>(m) * a.columns + group * 8);
#pragma unroll
        for (int r = 0; r < rowsPerWarp; r++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            sums[m][r] = multiplyAdd(lowOf(weights[l][r].words[i]), lowOf(x.words[i]), sums[m][r]);
            sums[m][r] = multiplyAdd(highOf(weights[l][r].words[i]), highOf(x.words[i]), sums[m][r]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < xRows; m++) {
    if (m >= a.rowCount) break;
#pragma unroll
    for (int r = 0; r < rowsPerWarp; r++) {
      const float sum = warpSum(sums[m][r]);
      if (lane() == 0 && firstRow + r < a.rows) takeOne(a, m, firstRow + r, sum);
    }
  }
}

template <int xRows, int rowsPerWarp, int loads>
void run(const LinearArguments& a, Stream stream) {
  const auto blocks = static_cast<uint32_t>(ceilDivide(a.rows, warps * rowsPerWarp));
  launch("linearByGemv", multiplyRows<xRows, rowsPerWarp, loads>, {{blocks}, {threads}}, stream, a);
}

template <int rowsPerWarp, int loads>
void runRows(const LinearArguments& a, Stream stream) {
  if (a.rowCount == 1) run<1, rowsPerWarp, loads>(a, stream);
  else if (a.rowCount == 2) run<2, rowsPerWarp, loads>(a, stream);
  else if (a.rowCount <= 4) run<4, rowsPerWarp, loads>(a, stream);
  else run<8, rowsPerWarp, loads>(a, stream);
}

}  // namespace

void linearByGemv(const LinearArguments& arguments, GemvShape shape, Stream stream) {
  if (arguments.rowCount < 1 || arguments.rowCount > mostGemvRows) throw NativeFault("linearByGemv: takes 1 to 8 rows");
  if (arguments.columns % 8 != 0) throw NativeFault("linearByGemv: columns must be a multiple of 8");
  switch (shape.rowsPerWarp * 16 + shape.loads) {
    case 1 * 16 + 4: return runRows<1, 4>(arguments, stream);
    case 1 * 16 + 8: return runRows<1, 8>(arguments, stream);
    case 2 * 16 + 4: return runRows<2, 4>(arguments, stream);
    case 2 * 16 + 8: return runRows<2, 8>(arguments, stream);
    case 4 * 16 + 4: return runRows<4, 4>(arguments, stream);
    case 4 * 16 + 8: return runRows<4, 8>(arguments, stream);
    default: throw NativeFault("linearByGemv: there is no such shape");
  }
}

}  // namespace variator::cuda
