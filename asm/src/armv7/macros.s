// What several files here share. Comments mark frames and registers of the goroutine stack with G
// and those of the system stack with S.
//
// A frame has two descriptions: CFI, for this library's walks and debuggers, and `.fnstart` to
// `.fnend`, for the system's unwinder. The latter is one for all instructions from one `.fnstart`
// to the next: it is right where the function calls. A part that calls nothing has `.cantunwind`.

// Loads the machine of this thread. Changes \scratch. The name of the place is used once; its word
// follows by stackmark_machine_word.
    .macro stackmark_load_machine register, scratch, place
    mrc p15, 0, \register, c13, c0, 3           // the thread pointer
    ldr \scratch, .Lmachine_word_\place
.Lmachine_at_\place:
    ldr \scratch, [pc, \scratch]
    ldr \register, [\register, \scratch]
    .endm

// The word that the code of this name needs, within 4 KiB of it.
    .macro stackmark_machine_word place
    .p2align 2
.Lmachine_word_\place:
    .word stackmark_machine(GOTTPOFF) + (. - .Lmachine_at_\place - 8)
    .endm

// Loads the address of a symbol of this image.
    .macro stackmark_address register, symbol
    movw \register, #:lower16:(\symbol - (.Lhere\@ + 8))
    movt \register, #:upper16:(\symbol - (.Lhere\@ + 8))
.Lhere\@:
    add \register, pc, \register
    .endm

// Says where the CFA of a part on S is that keeps the depth of its part on G:
//   *(*(sp) + stack_hi) - *(sp + 4) + \bytes
    .macro stackmark_cfa_by_depth bytes
    .cfi_escape 0x0f, 12                        // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x7d, 0, 0x06                   // DW_OP_breg13 (sp) 0, deref: the goroutine
    .cfi_escape 0x23, {g_stack_hi}, 0x06        // DW_OP_plus_uconst, deref: stack_hi
    .cfi_escape 0x7d, 4, 0x06, 0x1c             // DW_OP_breg13 (sp) 4, deref, minus: less the depth
    .cfi_escape 0x23, \bytes                    // DW_OP_plus_uconst
    .endm

// Says where the CFA of callback is while its part on G is in use: *(sp) + 112, in the part on S.
    .macro stackmark_cfa_of_callback
    .cfi_escape 0x0f, 5                         // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x7d, 0, 0x06                   // DW_OP_breg13 (sp) 0, deref: sp of the part on S
    .cfi_escape 0x23, 112                       // DW_OP_plus_uconst
    .endm

// The end of callback, on G. Afterwards the goroutine stands in its call out again, and sp is at
// the saved registers of callback's part on S. Keeps r0 to r3. stackmark_callback_personality does
// the same where an exception passes.
    .macro stackmark_leave_callback place
    ldr r4, [sp]                                // sp of the part on S
    ldr r5, [sp, #4]                            // goroutine
    ldr r6, [sp, #12]                           // the return slot goes back to sched.pc
    str r6, [r5, #{g_sched_pc}]
    add r6, sp, #16                             // call_system's part, where it lies now
    str r6, [r5, #{g_sched_sp}]
    ldr r6, [r6, #{call_system_fp}]             // the r11 that it saved
    str r6, [r5, #{g_sched_fp}]
    ldr r6, [r5, #{g_callback_depth}]
    sub r6, r6, #1
    str r6, [r5, #{g_callback_depth}]
    mov sp, r4                                  // on the system stack from here
    .cfi_def_cfa sp, 112
    stackmark_load_machine r5, r12, \place
    ldr r12, [sp], #8
    .cfi_def_cfa_offset 104
    str r12, [r5, #{m_system_sp}]
    .endm
