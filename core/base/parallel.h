// Work cut into numbered pieces, done on all cores.
#pragma once
#include <cstddef>
#include <functional>

namespace longlora {

// Calls work(0) ... work(count - 1), each once, on threads of its own: four a core, as some always wait for the disk, and 16
// at most, as every one holds a piece in memory. Numbers are taken in order. The first exception keeps the
// others from taking more, and is thrown here when all have ended.
void for_each_piece(size_t count, const std::function<void(size_t)>& work);

}  // namespace longlora
