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

Dtype parseDtype(const std::string& name) {
  if (name == "F32") return Dtype::F32;
  if (name == "F16") return Dtype::F16;
  if (name == "BF16") return Dtype::BF16;
  if (name == "Q8_0") return Dtype::Q8_0;
  if (name == "Q4_0") return Dtype::Q4_0;
  if (name == "Q4_1") return Dtype::Q4_1;
  throw NativeFault("dtype " + name + " is not one of F32, F16, BF16, Q8_0, Q4_0, Q4_1");
}

int64_t rowBytesOf(Dtype dtype, int64_t columns) {
  if (dtype == Dtype::F32) return columns * 4;
  if (dtype == Dtype::F16 || dtype == Dtype::BF16) return columns * 2;
  if (columns % 32 != 0) throw NativeFault("a quantised row must hold whole blocks of 32 weights");
  const int64_t blockBytes = dtype == Dtype::Q8_0 ? 34 : dtype == Dtype::Q4_0 ? 18 : 20;
  return columns / 32 * blockBytes;
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
