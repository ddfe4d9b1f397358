// See packed_file.h.
#include "packed_file.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace variator {
namespace {

constexpr int64_t dataOffset = int64_t{2} << 20;
constexpr size_t headerBytes = 4096;

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

// Eight sums side by side, so that it runs at the speed of memory; finds accidents, not forgeries.
uint64_t checksumOf(const uint8_t* data, int64_t byteLength) {
  uint64_t sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto add = [&](const uint8_t* from) {
    for (int lane = 0; lane < 8; lane++) {
      uint64_t word;
      std::memcpy(&word, from + 8 * lane, 8);
      sums[lane] = ((sums[lane] ^ word) * 0x9e3779b97f4a7c15ull) ^ (sums[lane] >> 29);
    }
  };
  int64_t at = 0;
  for (; at + 64 <= byteLength; at += 64) add(data + at);
  uint8_t rest[64] = {};
  std::memcpy(rest, data + at, static_cast<size_t>(byteLength - at));
  add(rest);
  uint64_t sum = 0;
  for (const uint64_t lane : sums) sum = (sum ^ lane) * 0x9e3779b97f4a7c15ull;
  return sum;
}

std::string headerOf(const PackedCache& cache, const std::string& layout, int64_t byteLength, uint64_t checksum) {
  std::string header = "variator packed weights\n" + cache.key + "\n" + layout + "\n" + std::to_string(byteLength) + "\n" +
                       std::to_string(checksum) + "\n";
  header.resize(headerBytes);
  return header;
}

bool writeAll(int descriptor, const void* data, int64_t byteLength) {
  const auto* from = static_cast<const uint8_t*>(data);
  while (byteLength > 0) {
    const ssize_t written = ::write(descriptor, from, static_cast<size_t>(byteLength < 1 << 26 ? byteLength : 1 << 26));
    if (written <= 0) return false;
    from += written;
    byteLength -= written;
  }
  return true;
}

}  // namespace

std::unique_ptr<PackedFile> PackedFile::open(const PackedCache& cache, const std::string& layout, int64_t byteLength) {
  const Descriptor descriptor(::open(cache.file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (descriptor.value() < 0 || fstat(descriptor.value(), &status) != 0 || status.st_size != dataOffset + byteLength) {
    return nullptr;
  }
  std::string header(headerBytes, '\0');
  if (pread(descriptor.value(), &header[0], headerBytes, 0) != static_cast<ssize_t>(headerBytes)) return nullptr;

  std::unique_ptr<PackedFile> file(new PackedFile());
  // Reserved first, so that the panels can be placed on a border of 2 MiB.
  const int64_t length = byteLength + dataOffset;
  void* reserved = mmap(nullptr, static_cast<size_t>(length), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  file->mapping_ = reserved;
  file->mappedLength_ = length;
  const auto mask = static_cast<uintptr_t>(dataOffset) - 1;
  void* place = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(reserved) + mask) & ~mask);
  void* data = mmap(place, static_cast<size_t>(byteLength), PROT_READ, MAP_PRIVATE | MAP_FIXED, descriptor.value(), dataOffset);
  if (data == MAP_FAILED) return nullptr;
  file->data_ = static_cast<const uint8_t*>(data);
  madvise(data, static_cast<size_t>(byteLength), MADV_WILLNEED);
#ifdef MADV_HUGEPAGE
  madvise(data, static_cast<size_t>(byteLength), MADV_HUGEPAGE);
#endif
  if (header != headerOf(cache, layout, byteLength, checksumOf(file->data_, byteLength))) return nullptr;
  return file;
}

PackedFile::~PackedFile() {
  if (mapping_ != nullptr) munmap(mapping_, static_cast<size_t>(mappedLength_));
}

bool PackedFile::write(const PackedCache& cache, const std::string& layout, const uint8_t* data, int64_t byteLength) {
  const std::string partial = cache.file + "." + std::to_string(getpid());
  {
    const Descriptor descriptor(::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (descriptor.value() < 0) return false;
    const std::string header = headerOf(cache, layout, byteLength, checksumOf(data, byteLength));
    if (writeAll(descriptor.value(), header.data(), headerBytes) &&
        lseek(descriptor.value(), dataOffset, SEEK_SET) == dataOffset && writeAll(descriptor.value(), data, byteLength) &&
        std::rename(partial.c_str(), cache.file.c_str()) == 0) {
      return true;
    }
  }
  unlink(partial.c_str());
  return false;
}

}  // namespace variator
