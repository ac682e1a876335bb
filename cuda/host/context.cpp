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

#if defined(__x86_64__)
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
constexpr int kSavedWords = 8, kReturnAddress = 6;  // and one: a return address for entry(), which has none
#else
// AAPCS64: registers 19 to 28, the frame pointer, the lower halves of vector registers 8 to 15 and the stack pointer
// survive a call; the return address is in the link register.
asm(R"(
.text
.p2align 4
.type longlora_switch_stack, %function
longlora_switch_stack:
  stp x29, x30, [sp, #-160]!
  stp x19, x20, [sp, #16]
  stp x21, x22, [sp, #32]
  stp x23, x24, [sp, #48]
  stp x25, x26, [sp, #64]
  stp x27, x28, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp d14, d15, [sp, #144]
  ldp d12, d13, [sp, #128]
  ldp d10, d11, [sp, #112]
  ldp d8, d9, [sp, #96]
  ldp x27, x28, [sp, #80]
  ldp x25, x26, [sp, #64]
  ldp x23, x24, [sp, #48]
  ldp x21, x22, [sp, #32]
  ldp x19, x20, [sp, #16]
  ldp x29, x30, [sp], #160
  ret
.size longlora_switch_stack, .-longlora_switch_stack
)");
constexpr int kSavedWords = 20, kReturnAddress = 1;
#endif

extern "C" void longlora_switch_stack(void** save_here, void* go_on_there);

namespace longlora::cuda::host {

void make_context(Context& context, void* stack, size_t bytes, void (*entry)()) {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15};
  void** words = reinterpret_cast<void**>(top) - kSavedWords;
  for (int i = 0; i < kSavedWords; ++i) words[i] = nullptr;
  words[kReturnAddress] = reinterpret_cast<void*>(entry);
  context.stack_pointer = words;
}

void switch_context(Context& from, Context& to) {
  longlora_switch_stack(&from.stack_pointer, to.stack_pointer);
}

}  // namespace longlora::cuda::host

#endif
