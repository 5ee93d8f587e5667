	.text
	.globl f
	.type f,@function
f:
	.cfi_startproc
	mov %esp, %eax
	.cfi_def_cfa_register %eax
	sub $60, %esp
	mov %eax, 24(%esp)
	mov 4(%eax), %ecx
	mov %ecx, 32(%esp)
	.cfi_escape 0x0f, 5, 0x74, 24, 0x06, 0x23, 4
	call *%ecx
	mov 32(%esp), %ecx
	mov 24(%esp), %esp
	.cfi_def_cfa_register %esp
	sub $12, %esp
	.cfi_adjust_cfa_offset 12
	call *%ecx
	.globl f_back
f_back:
	add $12, %esp
	.cfi_adjust_cfa_offset -12
	ret
	.cfi_endproc
	.size f,.-f
	.section .note.GNU-stack,"",@progbits
