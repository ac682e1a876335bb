// Objects to work with, lent to one caller at a time and kept for the next: caches stay warm, and calls from several
// threads never meet.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

namespace longlora::text {

template <class T>
class Pool {
 public:
  // A loan: gives the object back when it goes out of scope.
  class Loan {
   public:
    Loan(Pool& pool, std::unique_ptr<T> object) : pool_(pool), object_(std::move(object)) {}
    ~Loan() {
      const std::lock_guard lock(pool_.lock_);
      pool_.free_.push_back(std::move(object_));
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    [[nodiscard]] T& operator*() const { return *object_; }

   private:
    Pool& pool_;
    std::unique_ptr<T> object_;
  };

  [[nodiscard]] Loan take() {
    {
      const std::lock_guard lock(lock_);
      if (!free_.empty()) {
        auto object = std::move(free_.back());
        free_.pop_back();
        return Loan(*this, std::move(object));
      }
    }
    return Loan(*this, std::make_unique<T>());
  }

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<T>> free_;
};

}  // namespace longlora::text
