// Memory that is only reserved, for tests of index arithmetic past 2^31 elements.
#pragma once
#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>

namespace longlora::cuda::test {

// Zeros until written; pages exist where they are touched.
template <class T>
class Reserved {
 public:
  explicit Reserved(int64_t elements) : bytes_(static_cast<size_t>(elements) * sizeof(T)) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(data_ != MAP_FAILED);
  }
  ~Reserved() { munmap(data_, bytes_); }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;
  [[nodiscard]] T* data() { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

}  // namespace longlora::cuda::test
