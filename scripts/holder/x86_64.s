# lockvisor's holder for x86_64: keeps the descriptors that it inherited open until the process behind a pidfd ends.
#   holder PIDFD …        argv[1] is the pidfd's number in decimal; further arguments are for people
# One page of memory, no library, no polling: poll(2) on a pidfd returns when the process has ended (pidfd_open(2)).
.globl _start
.text
_start:
  mov $112, %eax            # setsid: no terminal's signals
  syscall
  mov $157, %eax            # prctl(PR_SET_NAME, name)
  mov $15, %edi
  lea name(%rip), %rsi
  xor %edx, %edx
  xor %r10d, %r10d
  xor %r8d, %r8d
  syscall
  cmpq $2, (%rsp)
  jb out
  mov 16(%rsp), %rsi        # argv[1]
  xor %ebx, %ebx
digit:
  movzbl (%rsi), %eax
  test %eax, %eax
  je parsed
  sub $48, %eax
  imul $10, %ebx, %ebx
  add %eax, %ebx
  inc %rsi
  jmp digit
parsed:
  sub $16, %rsp
  mov %ebx, (%rsp)          # struct pollfd: fd, events = POLLIN, revents = 0
  movl $1, 4(%rsp)
again:
  mov $7, %eax              # poll(&pollfd, 1, -1)
  mov %rsp, %rdi
  mov $1, %esi
  mov $-1, %edx
  syscall
  cmp $-4, %eax             # EINTR
  je again
out:
  mov $60, %eax             # exit(0)
  xor %edi, %edi
  syscall
name: .asciz "lockvisor-hold"
