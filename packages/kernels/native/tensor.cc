// Files mapped, anonymous arenas, and the sizes of the dtypes. Called by model.cc, packing.cc and kv_cache.cc.
#include "tensor.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native_fault.h"

namespace variator {

namespace {

struct NamedDtype {
  const char* name;
  Dtype dtype;
  Block block;
};
constexpr NamedDtype dtypes[] = {
    {"F32", Dtype::F32, {1, 4}},       {"F16", Dtype::F16, {1, 2}},       {"BF16", Dtype::BF16, {1, 2}},
    {"Q8_0", Dtype::Q8_0, {32, 34}},   {"Q4_0", Dtype::Q4_0, {32, 18}},   {"Q4_1", Dtype::Q4_1, {32, 20}},
    {"Q5_0", Dtype::Q5_0, {32, 22}},   {"Q5_1", Dtype::Q5_1, {32, 24}},   {"Q4_K", Dtype::Q4_K, {256, 144}},
    {"Q5_K", Dtype::Q5_K, {256, 176}}, {"Q6_K", Dtype::Q6_K, {256, 210}},
};

}  // namespace

Dtype parseDtype(const std::string& name) {
  std::string known;
  for (const NamedDtype& one : dtypes) {
    if (name == one.name) return one.dtype;
    known += (known.empty() ? "" : ", ") + std::string(one.name);
  }
  throw NativeFault("dtype " + name + " is not one of " + known);
}

Block blockOf(Dtype dtype) {
  for (const NamedDtype& one : dtypes) {
    if (dtype == one.dtype) return one.block;
  }
  throw NativeFault("a dtype without a block");
}

int64_t rowBytesOf(Dtype dtype, int64_t columns) {
  const Block block = blockOf(dtype);
  if (columns % block.weights != 0) {
    throw NativeFault("a quantised row must hold whole blocks of " + std::to_string(block.weights) + " weights");
  }
  return columns / block.weights * block.bytes;
}

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw NativeFault(path + ": cannot be opened: " + std::strerror(errno));
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
    close(descriptor);
    throw NativeFault(path + ": is not a file with content");
  }
  size_ = status.st_size;
  void* mapping = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, descriptor, 0);
  const int fault = errno;
  close(descriptor);
  if (mapping == MAP_FAILED) throw NativeFault(path + ": cannot be mapped: " + std::strerror(fault));
  data_ = static_cast<const uint8_t*>(mapping);
  madvise(mapping, static_cast<size_t>(size_), MADV_WILLNEED);
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_)); }

Arena::Arena(int64_t byteLength, const std::string& purpose) : size_(byteLength) {
  const int64_t hugePage = int64_t{2} << 20;
  mappedLength_ = (byteLength + hugePage - 1) / hugePage * hugePage + hugePage;
  mapping_ = mmap(nullptr, static_cast<size_t>(mappedLength_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) {
    throw NativeFault(purpose + ": " + std::to_string(byteLength) + " bytes of memory are not to be had");
  }
  const auto address = reinterpret_cast<uintptr_t>(mapping_);
  const auto mask = static_cast<uintptr_t>(hugePage) - 1;
  data_ = reinterpret_cast<uint8_t*>((address + mask) & ~mask);
#ifdef MADV_HUGEPAGE
  madvise(data_, static_cast<size_t>(mappedLength_ - hugePage), MADV_HUGEPAGE);
#endif
}

Arena::~Arena() { munmap(mapping_, static_cast<size_t>(mappedLength_)); }

}  // namespace variator
