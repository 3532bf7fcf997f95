// lockvisor's holder for aarch64: see x86_64.s.
.globl _start
.text
_start:
  mov x8, #157              // setsid
  svc #0
  mov x8, #167              // prctl(PR_SET_NAME, name)
  mov x0, #15
  adr x1, name
  mov x2, #0
  mov x3, #0
  mov x4, #0
  svc #0
  ldr x0, [sp]
  cmp x0, #2
  b.lo out
  ldr x1, [sp, #16]         // argv[1]
  mov w2, #0
  mov w4, #10
digit:
  ldrb w3, [x1], #1
  cbz w3, parsed
  sub w3, w3, #48
  madd w2, w2, w4, w3
  b digit
parsed:
  sub sp, sp, #16
  mov w3, #1
  stp w2, w3, [sp]          // struct pollfd
again:
  mov x8, #73               // ppoll(&pollfd, 1, 0, 0, 0)
  mov x0, sp
  mov x1, #1
  mov x2, #0
  mov x3, #0
  mov x4, #0
  svc #0
  cmn x0, #4                // EINTR
  b.eq again
out:
  mov x8, #93               // exit(0)
  mov x0, #0
  svc #0
name: .asciz "lockvisor-hold"
