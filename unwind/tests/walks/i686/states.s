# the shape of libgcrypt's AES code: an expression for the CFA, then def_cfa_register at the return
	.text
	.globl f
	.type f,@function
f:
	.cfi_startproc
	mov %esp, %eax
	.cfi_def_cfa_register %eax
	sub $60, %esp
	mov %eax, 24(%esp)
	.cfi_escape 0x0f, 6, 0x74, 24, 0x06, 0x23, 4, 0x96
	mov 64(%esp), %edx
	call *%edx
	mov 24(%esp), %esp
	.cfi_def_cfa_register %esp
	mov $1, %eax
	nop
	nop
	ret
	.cfi_endproc
	.size f,.-f
# offset after an expression, by def_cfa_offset
	.globl f2
	.type f2,@function
f2:
	.cfi_startproc
	sub $28, %esp
	.cfi_def_cfa_offset 32
	.cfi_escape 0x0f, 3, 0x74, 32, 0x96
	call *32(%esp)
	.cfi_def_cfa_offset 32
	nop
	.cfi_def_cfa %esp, 32
	add $28, %esp
	.cfi_def_cfa_offset 4
	ret
	.cfi_endproc
	.size f2,.-f2
# nested remember_state, six deep
	.globl f3
	.type f3,@function
f3:
	.cfi_startproc
	.cfi_remember_state
	sub $4, %esp
	.cfi_adjust_cfa_offset 4
	.cfi_remember_state
	sub $4, %esp
	.cfi_adjust_cfa_offset 4
	.cfi_remember_state
	sub $4, %esp
	.cfi_adjust_cfa_offset 4
	.cfi_remember_state
	sub $4, %esp
	.cfi_adjust_cfa_offset 4
	.cfi_remember_state
	sub $12, %esp
	.cfi_adjust_cfa_offset 12
	.cfi_remember_state
	call *32(%esp)
	.cfi_restore_state
	add $12, %esp
	.cfi_restore_state
	add $4, %esp
	.cfi_restore_state
	add $4, %esp
	.cfi_restore_state
	add $4, %esp
	.cfi_restore_state
	add $4, %esp
	.cfi_restore_state
	nop
	ret
	.cfi_endproc
	.size f3,.-f3
	.globl f4
	.type f4,@function
# three deep
f4:
	.cfi_startproc
	.cfi_remember_state
	sub $4, %esp
	.cfi_adjust_cfa_offset 4
	.cfi_remember_state
	sub $8, %esp
	.cfi_adjust_cfa_offset 8
	.cfi_remember_state
	call *16(%esp)
	.cfi_restore_state
	nop
	add $8, %esp
	.cfi_restore_state
	add $4, %esp
	.cfi_restore_state
	nop
	ret
	.cfi_endproc
	.size f4,.-f4
	.section .note.GNU-stack,"",@progbits
