# an empty function's entry of no bytes at the address of a real function
	.text
	.globl real
	.type real,@function
	.p2align 4
real:
	.cfi_startproc
	sub $12, %esp
	.cfi_def_cfa_offset 16
	call *16(%esp)
	add $12, %esp
	.cfi_def_cfa_offset 4
	ret
	.cfi_endproc
	.size real,.-real
	.section .text.unlikely,"ax",@progbits
	.type a,@function
a:
	.cfi_startproc
	.cfi_endproc
	.globl real2
	.type real2,@function
real2:
	.cfi_startproc
	sub $12, %esp
	.cfi_def_cfa_offset 16
	call *16(%esp)
	add $12, %esp
	.cfi_def_cfa_offset 4
	ret
	.cfi_endproc
	.size real2,.-real2
	.type b,@function
	.section .text.x,"ax",@progbits
	.globl real3
	.type real3,@function
real3:
	.cfi_startproc
	sub $12, %esp
	.cfi_def_cfa_offset 16
	call *16(%esp)
	add $12, %esp
	.cfi_def_cfa_offset 4
	ret
	.cfi_endproc
	.size real3,.-real3
	.text
	.section .text.x
	.subsection 1
	.section .text.y,"ax",@progbits
empty_after:
	.cfi_startproc
	.cfi_endproc
	.section .note.GNU-stack,"",@progbits
