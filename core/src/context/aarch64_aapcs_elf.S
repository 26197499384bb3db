// The context switch for AArch64, procedure call standard AAPCS64, ELF.
//
// It stands in for a call: the caller has saved what a call may destroy, so only what a callee must preserve is kept.
// Invariant: a suspended stack looks exactly as pictured, whichever code put it there.
//
// Register contract
//   culm_context_switch(x0 = &from.sp, x1 = &to.sp)
//     kept     x19-x28, x29 (frame pointer), x30 (return address), d8-d15 (low halves of v8-v15), and sp itself
//     lost     everything a call loses. x9 is scratch here. x18 is the platform's and is not touched
//     not kept fpcr: it belongs to the OS thread
//
// Stack pictures (higher addresses up; base is the end of the stack)
//
//      new                                 running                    suspended
//   base                                  base                       base
//     0 0  (end of all frames)              0 0                        0 0
//     d8-d15 = 0               +96          frames of entry            frames of entry
//     x29 = 0, x30 = entry     +80            ...                        ...
//     x27, x28 = 0             +64          <- sp                      d8-d15              +96
//     x25, x26 = 0             +48                                     x29, x30            +80
//     x23, x24 = 0             +32                                     x27, x28            +64
//     x21, x22 = 0             +16                                       ...
//     x19 = entry function,    + 0 <- sp                               x19, x20            + 0 <- sp
//     x20 = argument
//   (x30 = culm_context_entry)
//
// A new stack is one that was suspended just before culm_context_entry, so the switch needs no second path.
//
// No BTI property note: the last jump lands on a return address, which carries no landing pad. The linker drops the
// property as soon as one input lacks it.

        .text

        .p2align 4
        .globl  culm_context_switch
        .hidden culm_context_switch
        .type   culm_context_switch, %function
culm_context_switch:
        .cfi_startproc
        stp     x19, x20, [sp, #-160]!
        .cfi_adjust_cfa_offset 160
        .cfi_rel_offset x19, 0
        .cfi_rel_offset x20, 8
        stp     x21, x22, [sp, #16]
        .cfi_rel_offset x21, 16
        .cfi_rel_offset x22, 24
        stp     x23, x24, [sp, #32]
        .cfi_rel_offset x23, 32
        .cfi_rel_offset x24, 40
        stp     x25, x26, [sp, #48]
        .cfi_rel_offset x25, 48
        .cfi_rel_offset x26, 56
        stp     x27, x28, [sp, #64]
        .cfi_rel_offset x27, 64
        .cfi_rel_offset x28, 72
        stp     x29, x30, [sp, #80]
        .cfi_rel_offset x29, 80
        .cfi_rel_offset x30, 88
        stp     d8, d9, [sp, #96]
        .cfi_rel_offset d8, 96
        .cfi_rel_offset d9, 104
        stp     d10, d11, [sp, #112]
        .cfi_rel_offset d10, 112
        .cfi_rel_offset d11, 120
        stp     d12, d13, [sp, #128]
        .cfi_rel_offset d12, 128
        .cfi_rel_offset d13, 136
        stp     d14, d15, [sp, #144]
        .cfi_rel_offset d14, 144
        .cfi_rel_offset d15, 152

        mov     x9, sp                  // sp cannot be stored or loaded directly
        str     x9, [x0]
        ldr     x9, [x1]
        mov     sp, x9                  // From here on the rules above describe the stack that is entered: same picture.

        ldp     d14, d15, [sp, #144]
        ldp     d12, d13, [sp, #128]
        ldp     d10, d11, [sp, #112]
        ldp     d8, d9, [sp, #96]
        ldp     x29, x30, [sp, #80]
        ldp     x27, x28, [sp, #64]
        ldp     x25, x26, [sp, #48]
        ldp     x23, x24, [sp, #32]
        ldp     x21, x22, [sp, #16]
        ldp     x19, x20, [sp], #160    // The slots stay readable below sp until this point, so one set of rules suffices
        .cfi_adjust_cfa_offset -160
        .cfi_restore x19
        .cfi_restore x20
        .cfi_restore x21
        .cfi_restore x22
        .cfi_restore x23
        .cfi_restore x24
        .cfi_restore x25
        .cfi_restore x26
        .cfi_restore x27
        .cfi_restore x28
        .cfi_restore x29
        .cfi_restore x30
        .cfi_restore d8
        .cfi_restore d9
        .cfi_restore d10
        .cfi_restore d11
        .cfi_restore d12
        .cfi_restore d13
        .cfi_restore d14
        .cfi_restore d15
        ret                             // Not br: it takes the prediction off that the call which led here has left.
        .cfi_endproc
        .size   culm_context_switch, . - culm_context_switch

// The outermost frame of every fiber. Arrives by the return above with x19 = entry, x20 = argument.
        .p2align 4
        .globl  culm_context_entry
        .hidden culm_context_entry
        .type   culm_context_entry_frame, %function
culm_context_entry_frame:
        .cfi_startproc
        .cfi_undefined x30              // There is no caller: unwinders stop here instead of guessing.
        .cfi_def_cfa sp, 0
        nop                             // Unwinders look up the byte before a return address; for a new stack that
                                        // address is culm_context_entry, so an instruction of this frame must precede it.
culm_context_entry:
        mov     x0, x20
        blr     x19
        bl      culm_context_entry_returned     // Entry must not return: this says so and ends the process.
        brk     #1                      // Keeps the return address of that call inside this frame.
        .cfi_endproc
        .size   culm_context_entry_frame, . - culm_context_entry_frame

        .section .note.GNU-stack, "", %progbits
