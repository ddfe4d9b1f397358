// A weight matrix where it lies in a mapped file, and the mapping itself. Made by model.cc, read by the kernels.
// Rows are read with memcpy: a tensor may begin at any byte.
#pragma once
#include <cstdint>
#include <string>

namespace variator {

enum class Dtype { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K };

// How a dtype lies in a row: blocks of so many weights in so many bytes.
struct Block {
  int64_t weights, bytes;
};
Block blockOf(Dtype dtype);

// The 6-bit scale and minimum of a sub-block of 32 weights in Q4_K and Q5_K: the first four in the low bits of 12 bytes,
// the last four in nibbles and the upper bits that those left free.
struct SubBlock {
  float scale, minimum;
};
static inline SubBlock subBlockOf(const uint8_t* packed, int sub) {
  if (sub < 4) return {static_cast<float>(packed[sub] & 63), static_cast<float>(packed[sub + 4] & 63)};
  return {static_cast<float>((packed[sub + 4] & 15) | packed[sub - 4] >> 6 << 4),
          static_cast<float>(packed[sub + 4] >> 4 | packed[sub] >> 6 << 4)};
}

// [rows, columns], row-major. Quantised rows are whole blocks.
struct Tensor {
  const uint8_t* data = nullptr;
  Dtype dtype = Dtype::F32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t rowBytes = 0;
  int32_t linearShape = -1;  // of Model::linearShapes; -1 where it is no linear layer of a step
  __attribute__((always_inline)) const uint8_t* row(int64_t index) const { return data + index * rowBytes; }
};

// Throws NativeFault for an unknown name.
Dtype parseDtype(const std::string& name);
// Bytes of one row; throws NativeFault where `columns` does not fill whole blocks.
int64_t rowBytesOf(Dtype dtype, int64_t columns);

// A file mapped read-only for as long as this lives.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

// Anonymous memory, zero at first, in huge pages where the system grants them.
class Arena {
 public:
  Arena(int64_t byteLength, const std::string& purpose);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  int64_t mappedLength_ = 0;
  uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace variator
