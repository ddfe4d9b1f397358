// See linear_trial.h. Called by addon.cc on the event loop. What nobody writes stays NaN and shows in the result.
#include "linear_trial.h"

#include <algorithm>
#include <cmath>

#include "model.h"
#include "step.h"

namespace variator {

std::vector<float> multiplyAlone(const Tensor& tensor, const LinearVariant& linear, const std::vector<float>& x,
                                 int64_t rowCount, const LinearTuning& tuning) {
  const int64_t columns = tensor.columns;
  ActivationScratch scratch;
  const Activations rows = scratch.sized(rowCount, columns);
  const int64_t groups = rows.stride / 32;
  for (int64_t row = 0; row < rowCount; row++) {
    std::copy(x.begin() + row * columns, x.begin() + (row + 1) * columns, rows.values + row * rows.stride);
    floatOps().quantise(rows.values + row * rows.stride, groups, rows.codes + row * rows.stride, rows.scales + row * groups,
                        rows.scaledSums + row * groups);
    roundRest(rows.values + row * rows.stride, groups, rows.codes + row * rows.stride, rows.scales + row * groups,
              rows.restCodes + row * rows.stride, rows.restScales + row * groups, rows.restScaledSums + row * groups);
    floatOps().roundToBf16(rows.values + row * rows.stride, rows.stride, rows.bf16 + row * rows.stride);
  }
  Panels panels;
  std::unique_ptr<Arena> arena;
  if (linear.family != LinearFamily::Reference) {
    const PanelFormat format = panelFormatOf(tensor.dtype, panelWidthOf(linear.family));
    arena = std::make_unique<Arena>(packedBytesOf(tensor, format), "packed weights");
    panels = packPanels(tensor, format, arena->data());
  }
  std::vector<float> weightRows(static_cast<size_t>(4 * rows.stride));
  std::vector<float> out(static_cast<size_t>(rowCount * tensor.rows), std::nanf(""));
  std::vector<float> results(static_cast<size_t>(tuning.slabRows * panelRows));
  std::vector<float> rest(results.size());
  walkPanels(0, panelCountOf(tensor), 0, rowCount, tuning, [&](int64_t panel, int64_t start, int64_t count) {
    std::fill(results.begin(), results.end(), std::nanf(""));
    if (linear.family == LinearFamily::Reference) {
      floatOps().linearPanel(tensor, rows, panel, start, count, weightRows.data(), results.data());
    } else {
      const uint8_t* first = panels.data + panel * panels.groupCount * groupBytesOf(panels.format);
      const PanelFunction function = linear.kernels->functions[static_cast<int>(panels.format)];
      function(first, panels.groupCount, rows, start, count, tuning, results.data());
      if (linear.family == LinearFamily::Int8Residual) {
        function(first, panels.groupCount, rows.rest(), start, count, tuning, rest.data());
        floatOps().add(rest.data(), count * panelRows, results.data());
      }
    }
    const int64_t width = std::min(panelRows, tensor.rows - panel * panelRows);
    for (int64_t m = 0; m < count; m++) {
      std::copy_n(results.begin() + m * panelRows, width, out.begin() + (start + m) * tensor.rows + panel * panelRows);
    }
  });
  return out;
}

}  // namespace variator
