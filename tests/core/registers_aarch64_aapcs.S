// Fills every callee-saved register with a pattern, switches, and checks them: what no compiler lets C++ do.
//
// int culm_test_registers(x0 = void** from_sp, x1 = void* const* to_sp, x2 = pattern)
// Returns the number of registers that came back different.
        .text
        .globl  culm_test_registers
        .type   culm_test_registers, %function

// The register is compared with pattern + number, which is counted up.
        .macro  check register
        add     x2, x2, #1
        cmp     \register, x2
        cinc    w0, w0, ne
        .endm
        .macro  check_float register
        fmov    x3, \register
        check   x3
        .endm

culm_test_registers:
        stp     x29, x30, [sp, #-176]!
        stp     x19, x20, [sp, #16]
        stp     x21, x22, [sp, #32]
        stp     x23, x24, [sp, #48]
        stp     x25, x26, [sp, #64]
        stp     x27, x28, [sp, #80]
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        str     x2, [sp, #160]
        add     x19, x2, #1
        add     x20, x2, #2
        add     x21, x2, #3
        add     x22, x2, #4
        add     x23, x2, #5
        add     x24, x2, #6
        add     x25, x2, #7
        add     x26, x2, #8
        add     x27, x2, #9
        add     x28, x2, #10
        add     x29, x2, #11
        add     x3, x2, #12
        fmov    d8, x3
        add     x3, x2, #13
        fmov    d9, x3
        add     x3, x2, #14
        fmov    d10, x3
        add     x3, x2, #15
        fmov    d11, x3
        add     x3, x2, #16
        fmov    d12, x3
        add     x3, x2, #17
        fmov    d13, x3
        add     x3, x2, #18
        fmov    d14, x3
        add     x3, x2, #19
        fmov    d15, x3
        bl      culm_context_switch
        ldr     x2, [sp, #160]
        mov     w0, #0
        check   x19
        check   x20
        check   x21
        check   x22
        check   x23
        check   x24
        check   x25
        check   x26
        check   x27
        check   x28
        check   x29
        check_float d8
        check_float d9
        check_float d10
        check_float d11
        check_float d12
        check_float d13
        check_float d14
        check_float d15
        ldp     d14, d15, [sp, #144]
        ldp     d12, d13, [sp, #128]
        ldp     d10, d11, [sp, #112]
        ldp     d8, d9, [sp, #96]
        ldp     x27, x28, [sp, #80]
        ldp     x25, x26, [sp, #64]
        ldp     x23, x24, [sp, #48]
        ldp     x21, x22, [sp, #32]
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #176
        ret
        .size   culm_test_registers, . - culm_test_registers

        .section .note.GNU-stack, "", %progbits
