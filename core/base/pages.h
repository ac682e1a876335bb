// Hints to the system about the pages of a memory map, so that a file larger than memory can be gone through.
#pragma once
#include <cstddef>
#include <span>

namespace longlora {

// Reading of these bytes may begin now, in the background.
void prefetch_pages(std::span<const std::byte> bytes);

// These bytes of a file's map are not needed for now: whole pages of them leave this process's memory, and are read again
// where they are touched.
void release_pages(std::span<const std::byte> bytes);

// Only few of these bytes will be touched: nothing beside them is read ahead.
void expect_few_pages(std::span<const std::byte> bytes);

}  // namespace longlora
