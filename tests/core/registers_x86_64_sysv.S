// Fills every callee-saved register with a pattern, switches, and checks them: what no compiler lets C++ do.
//
// int culm_test_registers(rdi = void** from_sp, rsi = void* const* to_sp, rdx = pattern)
// Returns the number of registers that came back different.
        .text
        .globl  culm_test_registers
        .type   culm_test_registers, @function
culm_test_registers:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushq   %rdx                    // the pattern, and rsp becomes a multiple of 16
        movq    %rdx, %rbp
        leaq    1(%rdx), %rbx
        leaq    2(%rdx), %r12
        leaq    3(%rdx), %r13
        leaq    4(%rdx), %r14
        leaq    5(%rdx), %r15
        callq   culm_context_switch
        movq    (%rsp), %rdx
        xorl    %eax, %eax
        xorl    %ecx, %ecx
        cmpq    %rdx, %rbp
        setne   %cl
        addl    %ecx, %eax
        leaq    1(%rdx), %rdi
        cmpq    %rdi, %rbx
        setne   %cl
        addl    %ecx, %eax
        leaq    2(%rdx), %rdi
        cmpq    %rdi, %r12
        setne   %cl
        addl    %ecx, %eax
        leaq    3(%rdx), %rdi
        cmpq    %rdi, %r13
        setne   %cl
        addl    %ecx, %eax
        leaq    4(%rdx), %rdi
        cmpq    %rdi, %r14
        setne   %cl
        addl    %ecx, %eax
        leaq    5(%rdx), %rdi
        cmpq    %rdi, %r15
        setne   %cl
        addl    %ecx, %eax
        popq    %rdx
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        retq
        .size   culm_test_registers, . - culm_test_registers

        .section .note.GNU-stack, "", @progbits
