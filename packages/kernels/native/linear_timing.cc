// See linear_timing.h.
#include "linear_timing.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>

#include "float_ops.h"
#include "step.h"

namespace variator {
namespace {

using Clock = std::chrono::steady_clock;

// A matrix or a piece of one: an LM head of many panels is as good as several samples.
struct Piece {
  int32_t shape;
  Panels panels;
  int64_t begin, end;
};
constexpr int64_t mostPanelsPerPiece = 64;

void addPieces(const Tensor& tensor, const Panels& panels, std::vector<Piece>& pieces) {
  const int64_t panelCount = tensor.rows == 0 ? 0 : panelCountOf(tensor);
  const int64_t pieceCount = (panelCount + mostPanelsPerPiece - 1) / mostPanelsPerPiece;
  for (int64_t i = 0; i < pieceCount; i++) {
    pieces.push_back({tensor.linearShape, panels, panelCount * i / pieceCount, panelCount * (i + 1) / pieceCount});
  }
}

std::vector<Piece> piecesOf(const Model& model, const PackedModel& packed) {
  std::vector<Piece> pieces;
  for (size_t layer = 0; layer < model.matrices.size(); layer++) {
    std::vector<const Panels*> panels;
    visitMatrices(packed.matrices[layer], [&](const Panels& one) { panels.push_back(&one); });
    size_t index = 0;
    visitMatrices(model.matrices[layer], [&](const Tensor& tensor) { addPieces(tensor, *panels[index++], pieces); });
  }
  addPieces(model.head, packed.head, pieces);
  return pieces;
}

}  // namespace

float medianOf(std::vector<float>& values) {
  if (values.empty()) return std::nanf("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

LinearTimes timeLinears(const Model& model, const PackedModel& packed, const LinearVariant& linear, ThreadTeam& team,
                        int threadCount, int64_t rowCount, const std::vector<LinearTuning>& tunings, int32_t sampleCount,
                        double limitMs) {
  const size_t shapeCount = model.linearShapes.size(), tuningCount = tunings.size();
  const std::vector<Piece> pieces = piecesOf(model, packed);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  // Made before anything is timed: a thread that waits for longer than it spins would begin its share late.
  std::vector<std::unique_ptr<ActivationScratch>> scratches;
  std::vector<Activations> activations;  // by shape
  for (const LinearShape& shape : model.linearShapes) {
    scratches.push_back(std::make_unique<ActivationScratch>());
    const Activations x = scratches.back()->sized(rowCount, shape.columns);
    std::generate(x.values, x.values + rowCount * x.stride, [&] { return normal(random); });
    if (linear.family == LinearFamily::Bf16) floatOps().roundToBf16(x.values, rowCount * x.stride, x.bf16);
    else floatOps().quantise(x.values, rowCount * x.stride / 32, x.codes, x.scales, x.scaledSums);
    activations.push_back(x);
  }
  std::vector<float> outs(static_cast<size_t>(rowCount * mostPanelsPerPiece * panelRows));

  // Every visit of a shape takes the next of its turns: all tunings in random order, again and again.
  std::vector<std::vector<size_t>> turns(shapeCount);
  std::vector<std::vector<float>> samples(shapeCount * tuningCount);
  const auto nextTuning = [&](int32_t shape) {
    auto& own = turns[static_cast<size_t>(shape)];
    if (own.empty()) {
      for (size_t i = 0; i < tuningCount; i++) own.push_back(i);
      std::shuffle(own.begin(), own.end(), random);
    }
    const size_t next = own.back();
    own.pop_back();
    return next;
  };
  const auto isEnough = [&] {
    return std::all_of(samples.begin(), samples.end(), [&](const auto& own) { return static_cast<int32_t>(own.size()) >= sampleCount; });
  };

  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(limitMs);
  std::atomic<bool> isOver{false};
  LinearTuning tuning;
  const auto walk = [&](int thread) {
    std::vector<float> out(static_cast<size_t>(mostSlabRows * panelRows));
    for (const Piece& piece : pieces) {
      size_t chosen = 0;
      if (thread == 0) {
        chosen = nextTuning(piece.shape);
        tuning = tunings[chosen];
      }
      const Activations& x = activations[static_cast<size_t>(piece.shape)];
      team.barrier();
      const auto start = Clock::now();
      const Share share = shareOf(piece.end - piece.begin, thread, threadCount);
      walkPanels(piece.begin + share.begin, piece.begin + share.end, 0, rowCount, tuning,
                 [&](int64_t panel, int64_t rowStart, int64_t count) {
                   const Panels& panels = piece.panels;
                   const uint8_t* first = panels.data + panel * panels.groupCount * groupBytesOf(panels.format);
                   linear.kernels->functions[static_cast<int>(panels.format)](first, panels.groupCount, x, rowStart, count,
                                                                              tuning, out.data());
                   const int64_t stride = (piece.end - piece.begin) * panelRows;
                   for (int64_t m = 0; m < count; m++) {
                     std::copy_n(out.begin() + m * panelRows, panelRows,
                               outs.begin() + (rowStart + m) * stride + (panel - piece.begin) * panelRows);
                   }
                 });
      team.barrier();
      if (thread == 0) {
        const auto now = Clock::now();
        const double us = std::chrono::duration<double, std::micro>(now - start).count();
        samples[static_cast<size_t>(piece.shape) * tuningCount + chosen].push_back(
            static_cast<float>(us / static_cast<double>(piece.end - piece.begin)));
        if (now >= end) isOver.store(true);
      }
      team.barrier();
      if (isOver.load()) return;
    }
  };
  for (int32_t i = 0; i < sampleCount && !isOver.load() && !isEnough(); i++) team.run(threadCount, walk);

  LinearTimes times;
  for (auto& own : samples) {
    times.sampleCounts.push_back(static_cast<int32_t>(own.size()));
    times.usPerPanel.push_back(medianOf(own));
  }
  return times;
}

}  // namespace variator
