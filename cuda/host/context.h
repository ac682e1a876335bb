// Switching between stacks: a few instructions on x86-64 and 64-bit ARM, ucontext elsewhere. A context never changes
// its OS thread.
#pragma once
#include <cstddef>

#if !(defined(__x86_64__) || defined(__aarch64__)) || defined(LONGLORA_UCONTEXT)
#include <ucontext.h>
#define LONGLORA_CONTEXT_IS_UCONTEXT 1
#endif

namespace longlora::cuda::host {

struct Context {
#ifdef LONGLORA_CONTEXT_IS_UCONTEXT
  ucontext_t state;
#else
  void* stack_pointer = nullptr;
#endif
};

// Makes `context` start in entry(), which must not return, on the given stack.
void make_context(Context& context, void* stack, size_t bytes, void (*entry)());

// Goes on in `to`; returns when something switches back to `from`.
void switch_context(Context& from, Context& to);

}  // namespace longlora::cuda::host
