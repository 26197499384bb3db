// The context switch for x86-64, System V ABI, ELF.
//
// It stands in for a call: the caller has saved what a call may destroy, so only what a callee must preserve is kept.
// Invariant: a suspended stack looks exactly as pictured, whichever code put it there.
//
// Register contract
//   culm_context_switch(rdi = &from.sp, rsi = &to.sp)
//     kept     rbp rbx r12 r13 r14 r15, and rsp itself
//     lost     everything a call loses. rax and rcx are scratch here
//     not kept mxcsr and the x87 control word: they are callee-saved by the ABI, but a fiber that changes the rounding
//              mode across a park is rare, and keeping them doubles the cost of a switch. They belong to the OS thread.
//
// Stack pictures (higher addresses up; base is the end of the stack)
//
//      new                         running                    suspended
//   base                          base                       base
//     0 0  (end of all frames)      0 0                        0 0
//     culm_context_entry  +48       frames of entry            frames of entry
//     rbp = 0             +40         ...                        ...
//     rbx = 0             +32       <- rsp                     return address  +48
//     r12 = entry         +24                                  rbp             +40
//     r13 = argument      +16                                  rbx             +32
//     r14 = 0             + 8                                  r12             +24
//     r15 = 0             + 0 <- sp                            r13             +16
//                                                              r14             + 8
//                                                              r15             + 0 <- sp
//
// A new stack is one that was suspended just before culm_context_entry, so the switch needs no second path.
//
// No shadow-stack note: the return address of the other side is not on this thread's shadow stack, so an object with
// this file in it must not be marked as fit for one. The linker drops the mark as soon as one input lacks it.

        .text

        .p2align 4
        .globl  culm_context_switch
        .hidden culm_context_switch
        .type   culm_context_switch, @function
culm_context_switch:
        .cfi_startproc
        endbr64                         // may be reached through a pointer
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0

        movq    %rsp, (%rdi)
        movq    (%rsi), %rsp            // From here on the rules above describe the stack that is entered: same picture,
                                        // so a debugger that stops between any two instructions finds whole frames.
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret                             // Not pop and jump: the call that led here has left an entry on the CPU's stack
        // of return predictions, and only a ret takes it off. Left there, it shifts every later prediction by one, and
        // each return on the way back to the caller's loop is mispredicted. Fibers that left through the same calls,
        // as they do, then return along predicted paths. docs/decisions has the figures.
        .cfi_endproc
        .size   culm_context_switch, . - culm_context_switch

// The outermost frame of every fiber. Arrives by the return above with r12 = entry, r13 = argument, rsp 16-byte aligned.
        .p2align 4
        .globl  culm_context_entry
        .hidden culm_context_entry
        .type   culm_context_entry_frame, @function
culm_context_entry_frame:
        .cfi_startproc
        .cfi_undefined %rip             // There is no caller: unwinders stop here instead of guessing.
        .cfi_def_cfa %rsp, 0
        nop                             // Unwinders look up the byte before a return address; for a new stack that
                                        // address is culm_context_entry, so a byte of this frame must precede it.
culm_context_entry:
        endbr64
        movq    %r13, %rdi
        callq   *%r12                   // rsp is a multiple of 16 here, so the callee sees the rsp % 16 == 8 of any call
        callq   culm_context_entry_returned     // Entry must not return: this says so and ends the process.
        ud2                             // Keeps the return address of that call inside this frame.
        .cfi_endproc
        .size   culm_context_entry_frame, . - culm_context_entry_frame

        .section .note.GNU-stack, "", @progbits
