// The linear layers of a step: each a region of panels that threads share out, or, beside busy processes, units that
// assistants take off one thread's hands (assisted_units.h). Part of StepRunner, on the road of step.cc. A unit computes whole
// sums, so that who computes it changes no bit.
#include <algorithm>

#include "step.h"

namespace variator {
namespace {

// Of a unit: rows that a thread has memory for, and panels of them.
constexpr int64_t mostPanelsPerUnit = 8;
constexpr int64_t unitFloats = (mostPanelsPerUnit + 1) * mostSlabRows * panelRows;

struct Unit {
  int matrix;
  int64_t panelBegin, panelEnd, rowStart, rowCount;
};

int64_t ceilOf(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

LinearTuning StepRunner::tuningOf(const Linear& linear, int64_t rowCount) const {
  // The reference dequantises its weights anew for each slab of rows.
  if (!isPacked()) return {1, 0, mostSlabRows, 1};
  return step_->dispatch.of(linear.tensor->linearShape, rowCount);
}

StepRunner::Region StepRunner::regionOf(Take take, const Linear* linears, int linearCount, const Activations& rows,
                                        int64_t rowStart, int64_t rowCount) const {
  Region region{};
  region.take = take;
  region.variant = step_->linear;
  region.rows = rows;
  region.rowStart = rowStart;
  region.rowCount = rowCount;
  // Gate and up are one matrix of pairs of panels.
  region.matrixCount = take == Take::GateUp ? 1 : linearCount;
  for (int i = 0; i < linearCount; i++) region.linears[i] = linears[i];
  for (int i = 0; i < region.matrixCount; i++) region.tunings[i] = tuningOf(linears[i], rowCount);
  return region;
}

void StepRunner::multiplyPanel(const LinearVariant& variant, const Linear& linear, const Activations& rows, int64_t panel,
                               int64_t rowStart, int64_t rowCount, const LinearTuning& tuning, ThreadScratch& scratch,
                               float* out) {
  if (variant.family == LinearFamily::Reference) {
    floatOps().linearPanel(*linear.tensor, rows, panel, rowStart, rowCount, scratch.weightRows.sized(4 * rows.stride), out);
    return;
  }
  const Panels& panels = linear.panels;
  const uint8_t* first = panels.data + panel * panels.groupCount * groupBytesOf(panels.format);
  const PanelFunction function = variant.kernels->functions[static_cast<int>(panels.format)];
  function(first, panels.groupCount, rows, rowStart, rowCount, tuning, out);
  if (variant.family != LinearFamily::Int8Residual) return;
  float* rest = scratch.rest.sized(mostSlabRows * panelRows);
  function(first, panels.groupCount, rows.rest(), rowStart, rowCount, tuning, rest);
  floatOps().add(rest, rowCount * panelRows, out);
}

// `spare` holds as much as `out`; it is used for up alone.
void StepRunner::computePanel(const Region& region, int matrix, int64_t panel, int64_t rowStart, int64_t rowCount,
                              ThreadScratch& scratch, float* out, float* spare) {
  const LinearTuning& tuning = region.tunings[matrix];
  multiplyPanel(region.variant, region.linears[matrix], region.rows, panel, rowStart, rowCount, tuning, scratch, out);
  if (region.take != Take::GateUp) return;
  multiplyPanel(region.variant, region.linears[1], region.rows, panel, rowStart, rowCount, tuning, scratch, spare);
  floatOps().swiGlu(out, spare, rowCount * panelRows, out);
}

void StepRunner::takePanel(const Region& region, int matrix, int64_t panel, int64_t rowStart, int64_t rowCount,
                           const float* out) const {
  const int64_t stride = padded(region.linears[matrix].tensor->rows);
  for (int64_t m = 0; m < rowCount; m++) {
    const float* from = out + m * panelRows;
    const int64_t row = rowStart + m, column = panel * panelRows;
    switch (region.take) {
      case Take::Into: std::copy(from, from + panelRows, region.outs[matrix] + row * stride + column); break;
      case Take::AddToHidden: floatOps().add(from, panelRows, hidden_ + row * stride + column); break;
      case Take::GateUp:
        std::copy(from, from + panelRows, region.gated.values + row * region.gated.stride + column);
        if (isPacked()) roundGroups(region.gated, row, panel, 1);
        break;
    }
  }
}

void StepRunner::walkRegion(int thread, const Region& region, int matrix, int64_t panelBegin, int64_t panelEnd) {
  ThreadScratch& scratch = threads_[thread];
  float* out = scratch.panels.sized(unitFloats);
  walkPanels(panelBegin, panelEnd, region.rowStart, region.rowCount, region.tunings[matrix],
             [&](int64_t panel, int64_t rowStart, int64_t rowCount) {
               computePanel(region, matrix, panel, rowStart, rowCount, scratch, out, out + mostSlabRows * panelRows);
               takePanel(region, matrix, panel, rowStart, rowCount, out);
             });
}

void StepRunner::multiply(int thread, const Region& region) {
  if (step_->assistantCount > 0 && multiplyAssisted(region)) return;
  int64_t panelCount = 0;
  for (int matrix = 0; matrix < region.matrixCount; matrix++) panelCount += panelCountOf(*region.linears[matrix].tensor);
  const Share share = shareOf(panelCount, thread, step_->threadCount);
  int64_t before = 0;  // panels of the matrices before this one
  for (int matrix = 0; matrix < region.matrixCount; matrix++) {
    const int64_t own = panelCountOf(*region.linears[matrix].tensor);
    walkRegion(thread, region, matrix, std::max<int64_t>(share.begin - before, 0), std::min(share.end - before, own));
    before += own;
  }
}

namespace {

// The unit's place among those of its region: matrix by matrix, panels before rows.
template <typename Region>
Unit unitAt(const Region& region, uint32_t index) {
  const int64_t slabRows = std::min(region.rowCount, int64_t{mostSlabRows});
  const int64_t slabCount = ceilOf(region.rowCount, slabRows);
  int64_t left = index;
  int matrix = 0;
  for (;; matrix++) {
    const int64_t own = slabCount * ceilOf(panelCountOf(*region.linears[matrix].tensor), region.panelsPerUnit);
    if (left < own) break;
    left -= own;
  }
  const int64_t slab = left % slabCount, group = left / slabCount;
  const int64_t panelCount = panelCountOf(*region.linears[matrix].tensor);
  return {matrix, group * region.panelsPerUnit, std::min(panelCount, (group + 1) * region.panelsPerUnit),
          region.rowStart + slab * slabRows, std::min(slabRows, region.rowCount - slab * slabRows)};
}

}  // namespace

void StepRunner::computeUnit(const Region& region, uint32_t index, ThreadScratch& scratch) {
  const Unit unit = unitAt(region, index);
  float* out = scratch.panels.sized(unitFloats);
  float* spare = out + mostPanelsPerUnit * mostSlabRows * panelRows;
  for (int64_t panel = unit.panelBegin; panel < unit.panelEnd; panel++, out += mostSlabRows * panelRows) {
    computePanel(region, unit.matrix, panel, unit.rowStart, unit.rowCount, scratch, out, spare);
  }
}

void StepRunner::commitUnit(const Region& region, uint32_t index, ThreadScratch& scratch) const {
  const Unit unit = unitAt(region, index);
  const float* out = scratch.panels.sized(unitFloats);
  for (int64_t panel = unit.panelBegin; panel < unit.panelEnd; panel++, out += mostSlabRows * panelRows) {
    takePanel(region, unit.matrix, panel, unit.rowStart, unit.rowCount, out);
  }
}

// False where the region has too many units.
bool StepRunner::multiplyAssisted(Region region) {
  const int64_t slabRows = std::min(region.rowCount, int64_t{mostSlabRows}), slabCount = ceilOf(region.rowCount, slabRows);
  int64_t unitCount = 0;
  for (region.panelsPerUnit = std::clamp<int64_t>(64 / slabRows, 1, mostPanelsPerUnit);; region.panelsPerUnit++) {
    if (region.panelsPerUnit > mostPanelsPerUnit) return false;
    unitCount = 0;
    for (int matrix = 0; matrix < region.matrixCount; matrix++) {
      unitCount += slabCount * ceilOf(panelCountOf(*region.linears[matrix].tensor), region.panelsPerUnit);
    }
    if (unitCount <= int64_t{AssistedUnits<Region>::mostUnits}) break;
  }
  units_.run(region, static_cast<uint32_t>(unitCount),
             [&](const Region& own, uint32_t unit) { computeUnit(own, unit, threads_[0]); },
             [&](const Region& own, uint32_t unit) { commitUnit(own, unit, threads_[0]); });
  return true;
}

void StepRunner::assist(int thread) {
  ThreadScratch& scratch = threads_[thread];
  units_.assist([&](const Region& region, uint32_t unit) { computeUnit(region, unit, scratch); },
                [&](const Region& region, uint32_t unit) { commitUnit(region, unit, scratch); });
}

}  // namespace variator
