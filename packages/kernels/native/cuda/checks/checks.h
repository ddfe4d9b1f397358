// Every kernel against a slow version in double precision: what a check is, and what all of them need. Run by the runner's
// `check`, in the emulator under several seeds and on a GPU by the same code.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../formats.h"
#include "../gpu.h"

namespace variator::cuda {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {
    for (int i = 0; i < 4; i++) bits();
  }
  uint64_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1dull;
  }
  int64_t below(int64_t bound) { return static_cast<int64_t>((bits() >> 33) % static_cast<uint64_t>(bound)); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  // Near a normal deviate: the sum of four uniform ones.
  float normal() { return static_cast<float>((uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508); }
  std::vector<float> normals(int64_t count, float scale = 1) {
    std::vector<float> all(static_cast<size_t>(count));
    for (float& one : all) one = normal() * scale;
    return all;
  }
  std::vector<Bf16> bf16s(int64_t count, float scale = 1) {
    std::vector<Bf16> all(static_cast<size_t>(count));
    for (Bf16& one : all) one = toBf16(normal() * scale);
    return all;
  }

 private:
  uint64_t state_;
};

struct CheckRun {
  Stream stream;
  uint64_t seed;
  std::string fault;          // of the first thing that was wrong; empty: all is well
  double worst = 0;           // largest error over what was allowed, <= 1
  int64_t comparedCount = 0;

  // |got - want| <= relative * |want| + absolute, and got a number.
  void near(const std::string& what, double got, double want, double relative, double absolute);
  void same(const std::string& what, int64_t got, int64_t want);
  // To the bit.
  template <typename T>
  void sameBytes(const std::string& what, const std::vector<T>& got, const std::vector<T>& want) {
    comparedCount += static_cast<int64_t>(want.size());
    const bool isSame = got.size() == want.size() && (want.empty() || std::memcmp(got.data(), want.data(), got.size() * sizeof(T)) == 0);
    if (!isSame && fault.empty()) fault = what + ": not the same bits";
  }

  template <typename T>
  DeviceArray<T> upload(const std::vector<T>& values) {
    DeviceArray<T> array(static_cast<int64_t>(values.size()));
    if (!values.empty()) copyToDevice(array.data(), values.data(), array.bytes(), stream);
    wait(stream);
    return array;
  }
  // Filled with numbers that are none.
  template <typename T>
  DeviceArray<T> poisoned(int64_t count) {
    DeviceArray<T> array(count);
    fill(array.data(), 0xff, array.bytes(), stream);
    return array;
  }
  template <typename T>
  std::vector<T> download(const DeviceArray<T>& array) {
    std::vector<T> values(static_cast<size_t>(array.count()));
    copyToHost(values.data(), array.data(), array.bytes(), stream);
    wait(stream);
    return values;
  }
};

struct Check {
  const char* name;
  void (*run)(CheckRun& run);
};

void checkEmulatorFaults(CheckRun& run);  // emulator alone
void checkRmsNorm(CheckRun& run);
void checkElementwise(CheckRun& run);
void checkLinear(CheckRun& run);
void checkAttention(CheckRun& run);
void checkKvCache(CheckRun& run);
void checkSample(CheckRun& run);
void checkLinearQuantised(CheckRun& run);
void checkGemmLibrary(CheckRun& run);
void checkLibrary(CheckRun& run);
void checkLibraryFormats(CheckRun& run);
void checkHopperLayer(CheckRun& run);
void checkGemmWgmma(CheckRun& run);
void checkSkinnyWgmma(CheckRun& run);
void checkPrefillWgmma(CheckRun& run);
void checkDecodeWgmma(CheckRun& run);
void checkMlaWgmma(CheckRun& run);

inline const std::vector<Check>& allChecks() {
  static const std::vector<Check> all = {
#if defined(VARIATOR_EMULATED)
      {"emulator-faults", checkEmulatorFaults},
#endif
      {"rms-norm", checkRmsNorm},
      {"elementwise", checkElementwise},
      {"linear", checkLinear},
      {"linear-quantised", checkLinearQuantised},
      {"attention", checkAttention},
      {"kv-cache", checkKvCache},
      {"sample", checkSample},
      {"gemm-library", checkGemmLibrary},
      {"library", checkLibrary},
      {"library-formats", checkLibraryFormats},
      {"hopper-layer", checkHopperLayer},
      {"gemm-wgmma", checkGemmWgmma},
      {"skinny-wgmma", checkSkinnyWgmma},
      {"prefill-wgmma", checkPrefillWgmma},
      {"decode-wgmma", checkDecodeWgmma},
      {"mla-wgmma", checkMlaWgmma},
  };
  return all;
}

}  // namespace variator::cuda
