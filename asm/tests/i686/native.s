// managed_kept_by_\name(native function, n): calls it by stackmark_\name with the addresses of what
// the anchor is to be, and keeps a value in every callee-saved register meanwhile. Returns the sum
// of the result and the registers. The frame's CFA is by ebp.
    .macro managed_kept_by name
    .type managed_kept_by_\name,@function
managed_kept_by_\name:
    .cfi_startproc
    push ebp
    .cfi_def_cfa_offset 8
    .cfi_offset ebp, -8
    mov ebp, esp
    .cfi_def_cfa_register ebp
    push ebx
    .cfi_offset ebx, -12
    push esi
    .cfi_offset esi, -16
    push edi
    .cfi_offset edi, -20
    sub esp, 28
    mov ecx, [ebp + 8]
    mov edx, [ebp + 12]
    lea ebx, [edx + 1]
    lea esi, [edx + 2]
    lea edi, [edx + 3]
    call stackmark_here_eax
    .att_syntax
2:  leal 1f-2b(%eax), %eax
    .intel_syntax noprefix
    mov [esp + 12], eax                         // the anchor: pc, sp, fp
    mov [esp + 16], esp
    mov [esp + 20], ebp
    lea eax, [esp + 12]
    mov [esp], ecx
    mov [esp + 4], eax
    mov [esp + 8], edx
    call stackmark_\name
1:  add eax, ebx
    add eax, esi
    add eax, edi
    lea esp, [ebp - 12]
    pop edi
    pop esi
    pop ebx
    pop ebp
    .cfi_def_cfa esp, 4
    ret
    .cfi_endproc
    .size managed_kept_by_\name, .-managed_kept_by_\name
    .endm

    managed_kept_by call_native
    managed_kept_by call_native_all

// managed_results(native function, patterns): calls it by stackmark_call_native and stores what may
// carry results: eax and edx, xmm0, st0.
    .type managed_results,@function
managed_results:
    .cfi_startproc
    push ebx
    .cfi_def_cfa_offset 8
    .cfi_offset ebx, -8
    sub esp, 24
    .cfi_def_cfa_offset 32
    mov ebx, [esp + 36]
    mov eax, [esp + 32]
    mov [esp], eax
    mov [esp + 4], ebx
    call stackmark_call_native
    mov [ebx], eax
    mov [ebx + 4], edx
    movups [ebx + 8], xmm0
    fstp qword ptr [ebx + 24]
    add esp, 24
    .cfi_def_cfa_offset 8
    pop ebx
    .cfi_def_cfa_offset 4
    .cfi_restore ebx
    ret
    .cfi_endproc
    .size managed_results, .-managed_results

// native_results(patterns): loads the same.
    .type native_results,@function
native_results:
    .cfi_startproc
    mov ecx, [esp + 4]
    mov eax, [ecx]
    mov edx, [ecx + 4]
    movups xmm0, [ecx + 8]
    fld qword ptr [ecx + 24]
    ret
    .cfi_endproc
    .size native_results, .-native_results
