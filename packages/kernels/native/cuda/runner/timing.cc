// See timing.h.
#include "timing.h"

#include <algorithm>

namespace variator::cuda {
namespace {

double medianOf(Stream stream, int replays, int launches, const std::function<void()>& run) {
  const Event from = createEvent(), to = createEvent();
  std::vector<double> samples;
  for (int i = 0; i < replays + 2; i++) {
    record(from, stream);
    run();
    record(to, stream);
    wait(stream);
    // The first two warm up.
    if (i >= 2) samples.push_back(elapsedMs(from, to) * 1e3 / launches);
  }
  destroyEvent(from);
  destroyEvent(to);
  std::sort(samples.begin(), samples.end());
  return samples[samples.size() / 2];
}

}  // namespace

double medianUs(Stream stream, const TimingScale& scale, const std::function<void(int)>& launchOne) {
  beginCapture(stream);
  for (int i = 0; i < scale.launchesPerGraph; i++) launchOne(i);
  const Graph graph = endCapture(stream);
  const double us = medianOf(stream, scale.replays, scale.launchesPerGraph, [&] { replay(graph, stream); });
  destroyGraph(graph);
  return us;
}

double eagerUs(Stream stream, const TimingScale& scale, const std::function<void(int)>& launchOne) {
  return medianOf(stream, scale.replays, scale.launchesPerGraph, [&] {
    for (int i = 0; i < scale.launchesPerGraph; i++) launchOne(i);
  });
}

}  // namespace variator::cuda
