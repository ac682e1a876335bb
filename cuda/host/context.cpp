#include "cuda/host/context.h"

#include <cstdint>

#ifdef LONGLORA_CONTEXT_IS_UCONTEXT

namespace longlora::cuda::host {

void make_context(Context& context, void* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

void switch_context(Context& from, Context& to) {
  swapcontext(&from.state, &to.state);
}

}  // namespace longlora::cuda::host

#else

// System V ABI: six registers and the stack pointer survive a call; the return address is on the stack.
asm(R"(
.text
.p2align 4
.type longlora_switch_stack, @function
longlora_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size longlora_switch_stack, .-longlora_switch_stack
)");

extern "C" void longlora_switch_stack(void** save_here, void* go_on_there);

namespace longlora::cuda::host {

void make_context(Context& context, void* stack, size_t bytes, void (*entry)()) {
  // From the top: a return address for entry() (none), entry as the switch's return address, six registers.
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15};
  void** words = reinterpret_cast<void**>(top) - 8;
  for (int i = 0; i < 8; ++i) words[i] = nullptr;
  words[6] = reinterpret_cast<void*>(entry);
  context.stack_pointer = words;
}

void switch_context(Context& from, Context& to) {
  longlora_switch_stack(&from.stack_pointer, to.stack_pointer);
}

}  // namespace longlora::cuda::host

#endif
