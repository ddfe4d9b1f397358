// See elementwise.h.
#include "elementwise.h"

#include <algorithm>

#include "block_sums.cuh"

namespace variator::cuda {
namespace {

constexpr int embedThreads = 128, headThreads = 32, angleThreads = 128, swiGluThreads = 128;

KERNEL(embedThreads) void embedRow(const EmbedArguments a) {
  const int64_t row = blockIndex().x;
  const Bf16* from = a.embedding + static_cast<int64_t>(a.tokenIds[row]) * a.hiddenSize;
  float* to = a.residual + row * a.hiddenSize;
  for (int32_t at = 8 * static_cast<int32_t>(thread()); at < a.hiddenSize; at += 8 * embedThreads) {
    const Bytes16 eight = load16(from + at);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t first = eight.words[2 * half], second = eight.words[2 * half + 1];
      store16(to + at + 4 * half, {{bitsOf(lowOf(first)), bitsOf(highOf(first)), bitsOf(lowOf(second)), bitsOf(highOf(second))}});
    }
  }
}

KERNEL(angleThreads) void anglesOfRow(const AngleArguments a) {
  const int64_t row = blockIndex().x;
  for (int32_t i = static_cast<int32_t>(thread()); i < a.half; i += angleThreads) {
    const float angle = multiplyRounded(static_cast<float>(a.positions[row]), a.frequencies[i]);
    a.cosines[row * a.half + i] = multiplyRounded(cosf(angle), a.factor);
    a.sines[row * a.half + i] = multiplyRounded(sinf(angle), a.factor);
  }
}

// A warp a head of a token: queries, keys, values in the order in which they lie in the row.
KERNEL(headThreads) void rotateHead(const RotateAppendArguments a) {
  constexpr int32_t mostPerLane = 8;  // of 256 elements
  const int64_t row = blockIndex().x;
  const auto head = static_cast<int32_t>(blockIndex().y);
  const int32_t half = a.headSize / 2, width = (a.headCount + 2 * a.kvHeadCount) * a.headSize;
  const int32_t slot = a.slots[row];
  if (slot < 0) return;
  Bf16* values = a.qkv + row * width + head * a.headSize;
  const bool isQuery = head < a.headCount, isValue = head >= a.headCount + a.kvHeadCount;
  const float* norm = isValue ? nullptr : isQuery ? a.queryNorm : a.keyNorm;

  // Pairs by lanes: element pairOf(i)[0] and [1] of the head.
  float x[mostPerLane];
  float squares = 0;
  const auto firstOf = [&](int32_t pair) { return a.isInterleaved ? 2 * pair : pair; };
  const int32_t step = a.isInterleaved ? 1 : half;
#pragma unroll
  for (int32_t i = 0; i < mostPerLane / 2; i++) {
    const int32_t pair = static_cast<int32_t>(lane()) + 32 * i;
    x[2 * i] = x[2 * i + 1] = 0;
    if (pair >= half) continue;
    const int32_t first = firstOf(pair);
    x[2 * i] = toFloat(values[first]);
    x[2 * i + 1] = toFloat(values[first + step]);
    if (a.bias != nullptr) {
      x[2 * i] = addRounded(x[2 * i], a.bias[head * a.headSize + first]);
      x[2 * i + 1] = addRounded(x[2 * i + 1], a.bias[head * a.headSize + first + step]);
    }
    squares = multiplyAdd(x[2 * i], x[2 * i], squares);
    squares = multiplyAdd(x[2 * i + 1], x[2 * i + 1], squares);
  }
  float factor = 1;
  if (norm != nullptr) factor = reciprocalRoot(addRounded(warpSum(squares) / static_cast<float>(a.headSize), a.epsilon));

  float most = 0;
#pragma unroll
  for (int32_t i = 0; i < mostPerLane / 2; i++) {
    const int32_t pair = static_cast<int32_t>(lane()) + 32 * i;
    if (pair >= half) continue;
    float &left = x[2 * i], &right = x[2 * i + 1];
    if (norm != nullptr) {
      const int32_t first = firstOf(pair);
      left = multiplyRounded(norm[first], multiplyRounded(left, factor));
      right = multiplyRounded(norm[first + step], multiplyRounded(right, factor));
    }
    if (!isValue) {
      const float cosine = a.cosines[row * half + pair], sine = a.sines[row * half + pair];
      const float turned = multiplyAdd(left, cosine, -multiplyRounded(right, sine));
      right = multiplyAdd(right, cosine, multiplyRounded(left, sine));
      left = turned;
    }
    most = fabsf(left) > most ? fabsf(left) : most;
    most = fabsf(right) > most ? fabsf(right) : most;
  }

  const int32_t kvHead = isValue ? head - a.headCount - a.kvHeadCount : head - a.headCount;
  const int64_t block = slot / kvBlockTokens, place = kvHead * kvBlockTokens + slot % kvBlockTokens;
  if (!isQuery && a.kv.fp8Keys != nullptr) {
    uint8_t* to = (isValue ? a.kv.fp8Values : a.kv.fp8Keys) + block * fp8KvBlockBytes(a.kvHeadCount, a.headSize);
    most = warpMost(most);
    const float scale = most > 0 ? most / 448.0f : 1.0f;
    if (lane() == 0) reinterpret_cast<float*>(to + static_cast<int64_t>(a.kvHeadCount) * kvBlockTokens * a.headSize)[place] = scale;
    to += place * a.headSize;
#pragma unroll
    for (int32_t i = 0; i < mostPerLane / 2; i++) {
      const int32_t pair = static_cast<int32_t>(lane()) + 32 * i;
      if (pair >= half) continue;
      const int32_t first = firstOf(pair), second = first + step;
      const uint32_t codes = e4m3OfTwo(x[2 * i] / scale, x[2 * i + 1] / scale);
      to[isValue ? fp8ValuePlace(first) : fp8KeyPlace(first)] = static_cast<uint8_t>(codes);
      to[isValue ? fp8ValuePlace(second) : fp8KeyPlace(second)] = static_cast<uint8_t>(codes >> 8);
    }
    return;
  }
  Bf16* to = isQuery ? values : (isValue ? a.kv.values : a.kv.keys) + (block * a.kvHeadCount * kvBlockTokens + place) * a.headSize;
#pragma unroll
  for (int32_t i = 0; i < mostPerLane / 2; i++) {
    const int32_t pair = static_cast<int32_t>(lane()) + 32 * i;
    if (pair >= half) continue;
    const int32_t first = firstOf(pair);
    to[first] = toBf16(x[2 * i]);
    to[first + step] = toBf16(x[2 * i + 1]);
  }
}

KERNEL(swiGluThreads) void swiGluRow(const SwiGluArguments a) {
  const int64_t row = blockIndex().x;
  const int32_t at = 8 * (static_cast<int32_t>(blockIndex().y) * swiGluThreads + static_cast<int32_t>(thread()));
  if (at >= a.size) return;
  const Bf16* gates = a.gateUp + row * 2 * a.size + at;
  const Bytes16 gate = load16(gates), up = load16(gates + a.size);
  Bytes16 out;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float left = lowOf(gate.words[i]), right = highOf(gate.words[i]);
    out.words[i] = pairOf(left / (1.0f + expFast(-left)) * lowOf(up.words[i]), right / (1.0f + expFast(-right)) * highOf(up.words[i]));
  }
  store16(a.out + row * a.size + at, out);
}

}  // namespace

void embed(const EmbedArguments& arguments, Stream stream) {
  launch("embed", embedRow, {{static_cast<uint32_t>(arguments.tokenCount)}, {embedThreads}}, stream, arguments);
}

void rotaryAngles(const AngleArguments& arguments, Stream stream) {
  launch("rotaryAngles", anglesOfRow, {{static_cast<uint32_t>(arguments.tokenCount)}, {angleThreads}}, stream, arguments);
}

void rotateAndAppend(const RotateAppendArguments& arguments, Stream stream) {
  const auto heads = static_cast<uint32_t>(arguments.headCount + 2 * arguments.kvHeadCount);
  launch("rotateAndAppend", rotateHead, {{static_cast<uint32_t>(arguments.tokenCount), heads}, {headThreads}}, stream, arguments);
}

void swiGlu(const SwiGluArguments& arguments, Stream stream) {
  const auto parts = static_cast<uint32_t>(ceilDivide(arguments.size, 8 * swiGluThreads));
  launch("swiGlu", swiGluRow, {{static_cast<uint32_t>(arguments.tokenCount), parts}, {swiGluThreads}}, stream, arguments);
}

}  // namespace variator::cuda
