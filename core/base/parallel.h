// Work cut into numbered pieces, done on all cores.
#pragma once
#include <cstddef>
#include <functional>

namespace longlora {

// Calls work(0) ... work(count - 1), each once, on threads of its own: one a core, 16 at most (what is written here is
// bounded by the disk, and every thread holds a piece in memory). Numbers are taken in order. The first exception keeps the
// others from taking more, and is thrown here when all have ended.
void for_each_piece(size_t count, const std::function<void(size_t)>& work);

}  // namespace longlora
