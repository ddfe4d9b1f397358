// Packed weights kept in a file between starts: a page of header (what they were made of, a checksum), then the panels
// from a 2 MiB border on, so that huge pages fit where the system grants them to files. Used by packed_model.cc. A file
// that is damaged, cut or of something else is not used; what cannot be written is not kept. Neither is a fault.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace variator {

// Where a model's panels may be kept. `key` tells the model's weights from all others.
struct PackedCache {
  std::string file;  // empty: nowhere
  std::string key;
};

class PackedFile {
 public:
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;
  const uint8_t* data() const { return data_; }

  // The file's `byteLength` bytes of panels, mapped; null where it has not exactly these. Reads all of them once.
  static std::unique_ptr<PackedFile> open(const PackedCache& cache, const std::string& layout, int64_t byteLength);
  // Replaces the file in one move; false where that cannot be done (a full disk, a folder that may not be written).
  static bool write(const PackedCache& cache, const std::string& layout, const uint8_t* data, int64_t byteLength);

 private:
  PackedFile() = default;
  void* mapping_ = nullptr;
  int64_t mappedLength_ = 0;
  const uint8_t* data_ = nullptr;
};

}  // namespace variator
