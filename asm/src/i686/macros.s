// What several files here share. Comments mark frames and registers of the goroutine stack with G
// and those of the system stack with S.

// Puts the address of the global offset table into eax or ecx. The assembler takes that symbol for
// the distance from the instruction, which is where the call returns to.
    .macro stackmark_got register
    call stackmark_here_\register
    add \register, offset _GLOBAL_OFFSET_TABLE_
    .endm

// Loads the machine of this thread; \got holds the address of the global offset table.
    .macro stackmark_machine_by machine, got
    mov \machine, dword ptr [\got + stackmark_machine@GOTNTPOFF]
    mov \machine, dword ptr gs:[\machine]
    .endm

// The callee-saved registers, in the order of the stack pictures: ebp at CFA - 8 down to edi at
// CFA - 20.
    .macro stackmark_saved_at_cfa
    .cfi_offset ebp, -8
    .cfi_offset ebx, -12
    .cfi_offset esi, -16
    .cfi_offset edi, -20
    .endm

// Pushes them in that order, at the beginning of a function.
    .macro stackmark_push_saved
    push ebp
    .cfi_def_cfa_offset 8
    .cfi_offset ebp, -8
    push ebx
    .cfi_def_cfa_offset 12
    .cfi_offset ebx, -12
    push esi
    .cfi_def_cfa_offset 16
    .cfi_offset esi, -16
    push edi
    .cfi_def_cfa_offset 20
    .cfi_offset edi, -20
    .endm

// Pops them; the return address is left.
    .macro stackmark_pop_saved
    pop edi
    .cfi_def_cfa_offset 16
    .cfi_restore edi
    pop esi
    .cfi_def_cfa_offset 12
    .cfi_restore esi
    pop ebx
    .cfi_def_cfa_offset 8
    .cfi_restore ebx
    pop ebp
    .cfi_def_cfa_offset 4
    .cfi_restore ebp
    .endm

// The end of enter_managed, after a return and when an exception passes. Afterwards the anchor is
// the one from before, and esp is at the saved registers. Changes ecx and edx.
    .macro stackmark_leave_managed
    add esp, 8
    .cfi_def_cfa_offset 40
    pop edx                                     // goroutine
    .cfi_def_cfa_offset 36
    pop dword ptr [edx + {g_sched_pc}]
    .cfi_def_cfa_offset 32
    pop ecx
    .cfi_def_cfa_offset 28
    pop dword ptr [edx + {g_sched_fp}]
    .cfi_def_cfa_offset 24
    pop dword ptr [edx + {g_entered}]
    .cfi_def_cfa_offset 20
    mov dword ptr [edx + {g_sched_sp}], ecx     // last: now there is an anchor
    .endm

// Where run jumps to, still on S: the registers hold what they hold in the caller of run.
    .macro stackmark_before_switch_in
    .cfi_def_cfa esp, 0
    .cfi_register eip, ecx
    .irp register, ebp, ebx, esi, edi
    .cfi_same_value \register
    .endr
    .endm

// Says where the CFA of a part on S is that keeps the depth of its part on G:
//   *(*(esp + \at) + stack_hi) - *(esp + \at + 4) + \bytes
    .macro stackmark_cfa_by_depth at, bytes
    .cfi_escape 0x0f, 12                        // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x74, \at, 0x06                 // DW_OP_breg4 (esp), deref: the goroutine
    .cfi_escape 0x23, {g_stack_hi}, 0x06        // DW_OP_plus_uconst, deref: stack_hi
    .cfi_escape 0x74, \at + 4, 0x06, 0x1c       // DW_OP_breg4 (esp), deref, minus: less the depth
    .cfi_escape 0x23, \bytes                    // DW_OP_plus_uconst
    .endm

// Says where the CFA of callback is while its part on G is in use: *(esp + 4) + 32, in the part on
// S.
    .macro stackmark_cfa_of_callback
    .cfi_escape 0x0f, 5                         // DW_CFA_def_cfa_expression, its length
    .cfi_escape 0x74, 4, 0x06                   // DW_OP_breg4 (esp), deref: esp of the part on S
    .cfi_escape 0x23, 32                        // DW_OP_plus_uconst
    .endm

// The end of callback, on G, after a return and when an exception passes. Afterwards the goroutine
// stands in its call out again, and esp is at the saved registers of callback's part on S. Keeps
// eax, esi and edi.
    .macro stackmark_leave_callback
    mov edx, dword ptr [esp + 8]                // goroutine
    mov ecx, dword ptr [esp + 24]               // the return slot goes back to sched.pc
    mov dword ptr [edx + {g_sched_pc}], ecx
    lea ecx, [esp + 28]                         // call_system's part, where it lies now
    mov dword ptr [edx + {g_sched_sp}], ecx
    mov ecx, dword ptr [ecx + 12]               // the ebp that it saved
    mov dword ptr [edx + {g_sched_fp}], ecx
    dec dword ptr [edx + {g_callback_depth}]
    mov esp, dword ptr [esp + 4]                // on the system stack from here
    .cfi_def_cfa esp, 32
    stackmark_got ecx
    stackmark_machine_by ebx, ecx
    pop dword ptr [ebx + {m_system_sp}]
    .cfi_def_cfa_offset 28
    add esp, 8
    .cfi_def_cfa_offset 20
    .endm

// The end of a landing pad whose frame is gone. The exception is in the first word of the arguments
// that the frame was called with: they are the callee's. Not by the PLT, which would need ebx.
    .macro stackmark_resume_unwinding
    stackmark_got ecx
    jmp dword ptr [ecx + _Unwind_Resume@GOT]
    .endm
