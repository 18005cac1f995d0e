#include "textflag.h"

// AES-256-GCM of 4 KiB blocks: 512 bytes at a time in Z0 to Z7. GHASH works on byte-reversed blocks in POLYVAL's field
// (RFC 8452, appendix A), where its powers of the hash key were prepared to fit; the 32 products of 512 bytes are reduced together.
// The processor overlaps the hash of one part with the encryption of the next by itself.

DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// What the four lanes add to a counter, and what each step adds to all.
DATA lanes<>+0(SB)/8, $2
DATA lanes<>+8(SB)/8, $0
DATA lanes<>+16(SB)/8, $3
DATA lanes<>+24(SB)/8, $0
DATA lanes<>+32(SB)/8, $4
DATA lanes<>+40(SB)/8, $0
DATA lanes<>+48(SB)/8, $5
DATA lanes<>+56(SB)/8, $0
GLOBL lanes<>(SB), RODATA|NOPTR, $64

DATA four<>+0(SB)/8, $4
DATA four<>+8(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16

// x^63 + x^62 + x^57: the field's polynomial above x^64.
DATA poly<>+0(SB)/8, $0xc200000000000000
DATA poly<>+8(SB)/8, $0xc200000000000000
GLOBL poly<>(SB), RODATA|NOPTR, $16

// The block of lengths, byte-reversed: 4096 bytes of data below 32 bytes of associated data, in bits.
DATA lengths<>+0(SB)/8, $32768
DATA lengths<>+8(SB)/8, $256
GLOBL lengths<>(SB), RODATA|NOPTR, $16

// schedule.hash
#define HASH 240

#define CTR Z8
#define FOUR Z9
#define REV Z10
#define ACC Z11
#define LO Z12
#define MID Z13
#define HI Z14
#define POLY Z15
#define KEY Z19

// func expandKey(key *[32]byte, out *[15][16]byte)
#define SPREAD(x, t) \
	MOVO  x, t \
	PSLLO $4, t \
	PXOR  t, x \
	PSLLO $4, t \
	PXOR  t, x \
	PSLLO $4, t \
	PXOR  t, x

#define EVEN(rcon, off) \
	AESKEYGENASSIST $rcon, X3, X2 \
	PSHUFD $0xff, X2, X2 \
	SPREAD(X1, X4) \
	PXOR   X2, X1 \
	MOVOU  X1, off(DI)

#define ODD(off) \
	AESKEYGENASSIST $0, X1, X2 \
	PSHUFD $0xaa, X2, X2 \
	SPREAD(X3, X4) \
	PXOR   X2, X3 \
	MOVOU  X3, off(DI)

TEXT ·expandKey(SB), NOSPLIT, $0-16
	MOVQ key+0(FP), SI
	MOVQ out+8(FP), DI
	MOVOU 0(SI), X1
	MOVOU 16(SI), X3
	MOVOU X1, 0(DI)
	MOVOU X3, 16(DI)
	EVEN(0x01, 32)
	ODD(48)
	EVEN(0x02, 64)
	ODD(80)
	EVEN(0x04, 96)
	ODD(112)
	EVEN(0x08, 128)
	ODD(144)
	EVEN(0x10, 160)
	ODD(176)
	EVEN(0x20, 192)
	ODD(208)
	EVEN(0x40, 224)
	PXOR X1, X1
	PXOR X2, X2
	PXOR X3, X3
	PXOR X4, X4
	RET

// ENC1 encrypts the AES block in x under the keys at AX.
#define ENC1(x) \
	VPXOR 0(AX), x, x \
	VAESENC 16(AX), x, x \
	VAESENC 32(AX), x, x \
	VAESENC 48(AX), x, x \
	VAESENC 64(AX), x, x \
	VAESENC 80(AX), x, x \
	VAESENC 96(AX), x, x \
	VAESENC 112(AX), x, x \
	VAESENC 128(AX), x, x \
	VAESENC 144(AX), x, x \
	VAESENC 160(AX), x, x \
	VAESENC 176(AX), x, x \
	VAESENC 192(AX), x, x \
	VAESENC 208(AX), x, x \
	VAESENCLAST 224(AX), x, x

// func encrypt(s *schedule, block *[16]byte)
TEXT ·encrypt(SB), NOSPLIT, $0-16
	MOVQ s+0(FP), AX
	MOVQ block+8(FP), DI
	VMOVDQU (DI), X0
	ENC1(X0)
	VMOVDQU X0, (DI)
	RET

// PRODUCT adds x times h to LO, MID and HI, the three parts of the product. It spoils Z17 and Z18.
#define PRODUCT(h, x) \
	VPCLMULQDQ $0x00, h, x, Z17 \
	VPCLMULQDQ $0x11, h, x, Z18 \
	VPXORQ Z17, LO, LO \
	VPXORQ Z18, HI, HI \
	VPCLMULQDQ $0x01, h, x, Z17 \
	VPCLMULQDQ $0x10, h, x, Z18 \
	VPTERNLOGQ $0x96, Z18, Z17, MID

#define NOPRODUCT \
	VPXORQ LO, LO, LO \
	VPXORQ MID, MID, MID \
	VPXORQ HI, HI, HI

// REDUCE puts what LO, MID and HI hold, times x^-128, into ACC: the low half of the product is cancelled in two steps of 64 bits by
// multiples of the polynomial, and the four lanes are added up.
#define REDUCE \
	VPSLLDQ $8, MID, Z17 \
	VPSRLDQ $8, MID, Z18 \
	VPXORQ Z17, LO, LO \
	VPXORQ Z18, HI, HI \
	VPCLMULQDQ $0x00, POLY, LO, Z17 \
	VPSHUFD $0x4e, LO, LO \
	VPXORQ Z17, LO, LO \
	VPCLMULQDQ $0x00, POLY, LO, Z17 \
	VPSHUFD $0x4e, LO, LO \
	VPTERNLOGQ $0x96, Z17, LO, HI \
	VEXTRACTI64X4 $1, HI, Y17 \
	VPXORQ Y17, Y14, Y14 \
	VEXTRACTI32X4 $1, Y14, X17 \
	VPXORQ X17, X14, X11

// func dot(dst, a, b *[16]byte)
TEXT ·dot(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	VBROADCASTI32X4 poly<>(SB), POLY
	VMOVDQU (SI), X0
	VMOVDQU (DX), X1
	NOPRODUCT
	PRODUCT(Z1, Z0)
	REDUCE
	VMOVDQU X11, (DI)
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VZEROUPPER
	RET

#define EIGHT(op) \
	op(Z0) \
	op(Z1) \
	op(Z2) \
	op(Z3) \
	op(Z4) \
	op(Z5) \
	op(Z6) \
	op(Z7)

#define COUNT(z) \
	VPSHUFB REV, CTR, z \
	VPADDD FOUR, CTR, CTR

#define FIRST(z) VPXORQ KEY, z, z
#define MIDDLE(z) VAESENC KEY, z, z
#define LAST(z) VAESENCLAST KEY, z, z

#define ROUND(n) \
	VBROADCASTI32X4 (16*n)(AX), KEY \
	EIGHT(MIDDLE)

// STREAM puts the next 512 bytes of the key stream into Z0 to Z7.
#define STREAM \
	EIGHT(COUNT) \
	VBROADCASTI32X4 0(AX), KEY \
	EIGHT(FIRST) \
	ROUND(1) \
	ROUND(2) \
	ROUND(3) \
	ROUND(4) \
	ROUND(5) \
	ROUND(6) \
	ROUND(7) \
	ROUND(8) \
	ROUND(9) \
	ROUND(10) \
	ROUND(11) \
	ROUND(12) \
	ROUND(13) \
	VBROADCASTI32X4 224(AX), KEY \
	EIGHT(LAST)

// ABSORB adds the ciphertext in z, the n-th 64 bytes of 512, to the hash. It spoils z.
#define ABSORB(n, z) \
	VPSHUFB REV, z, z \
	VMOVDQU64 (HASH+64*n)(AX), Z16 \
	PRODUCT(Z16, z)

// What was hashed before goes in with the first block.
#define ABSORBFIRST(z) \
	VPSHUFB REV, z, z \
	VPXORQ ACC, z, z \
	VMOVDQU64 HASH(AX), Z16 \
	PRODUCT(Z16, z)

// SETUP encrypts the block of the tag into X20, and hashes the associated data. The arguments are in AX (schedule), BX (nonce) and CX.
#define SETUP \
	VBROADCASTI32X4 reverse<>(SB), REV \
	VBROADCASTI32X4 poly<>(SB), POLY \
	VBROADCASTI32X4 four<>(SB), FOUR \
	VMOVQ (BX), X0 \
	MOVL 8(BX), BX \
	VPINSRD $2, BX, X0, X0 \
	VPSHUFB X10, X0, X8 \
	VSHUFI64X2 $0, CTR, CTR, CTR \
	VPADDD lanes<>(SB), CTR, CTR \
	MOVL $0x01000000, BX \
	VPINSRD $3, BX, X0, X0 \
	ENC1(X0) \
	VMOVDQA64 X0, X20 \
	VMOVDQU (CX), Y0 \
	VPSHUFB Y10, Y0, Y0 \
	VMOVDQU (HASH+480)(AX), Y1 \
	NOPRODUCT \
	PRODUCT(Z1, Z0) \
	REDUCE

// FINISH hashes the lengths, stores the tag, and leaves nothing in the registers.
#define FINISH \
	VPXOR lengths<>(SB), X11, X0 \
	VMOVDQU (HASH+496)(AX), X1 \
	NOPRODUCT \
	PRODUCT(Z1, Z0) \
	REDUCE \
	VPSHUFB X10, X11, X0 \
	VPXORQ X20, X0, X0 \
	VMOVDQU X0, (DX) \
	VPXORQ Z16, Z16, Z16 \
	VPXORQ Z17, Z17, Z17 \
	VPXORQ Z18, Z18, Z18 \
	VPXORQ Z19, Z19, Z19 \
	VPXORQ Z20, Z20, Z20 \
	VZEROALL

#define PUT(n, z) \
	VPXORQ (64*n)(SI), z, z \
	VMOVDQU64 z, (64*n)(DI)

// func seal(s *schedule, nonce *[12]byte, aad *[32]byte, dst, src *[4096]byte, tag *[16]byte)
TEXT ·seal(SB), NOSPLIT, $0-48
	MOVQ s+0(FP), AX
	MOVQ nonce+8(FP), BX
	MOVQ aad+16(FP), CX
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ tag+40(FP), DX
	SETUP
	MOVQ $8, R8
sealNext:
	STREAM
	PUT(0, Z0)
	PUT(1, Z1)
	PUT(2, Z2)
	PUT(3, Z3)
	PUT(4, Z4)
	PUT(5, Z5)
	PUT(6, Z6)
	PUT(7, Z7)
	NOPRODUCT
	ABSORBFIRST(Z0)
	ABSORB(1, Z1)
	ABSORB(2, Z2)
	ABSORB(3, Z3)
	ABSORB(4, Z4)
	ABSORB(5, Z5)
	ABSORB(6, Z6)
	ABSORB(7, Z7)
	REDUCE
	ADDQ $512, SI
	ADDQ $512, DI
	DECQ R8
	JNZ sealNext
	FINISH
	RET

// TAKE hashes the n-th 64 bytes of ciphertext and decrypts them with the key stream in z.
#define TAKE(n, z) \
	VMOVDQU64 (64*n)(SI), Z21 \
	VPXORQ Z21, z, z \
	VMOVDQU64 z, (64*n)(DI) \
	ABSORB(n, Z21)

// func open(s *schedule, nonce *[12]byte, aad *[32]byte, dst, src *[4096]byte, tag *[16]byte)
TEXT ·open(SB), NOSPLIT, $0-48
	MOVQ s+0(FP), AX
	MOVQ nonce+8(FP), BX
	MOVQ aad+16(FP), CX
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ tag+40(FP), DX
	SETUP
	MOVQ $8, R8
openNext:
	STREAM
	NOPRODUCT
	VMOVDQU64 (SI), Z21
	VPXORQ Z21, Z0, Z0
	VMOVDQU64 Z0, (DI)
	ABSORBFIRST(Z21)
	TAKE(1, Z1)
	TAKE(2, Z2)
	TAKE(3, Z3)
	TAKE(4, Z4)
	TAKE(5, Z5)
	TAKE(6, Z6)
	TAKE(7, Z7)
	REDUCE
	ADDQ $512, SI
	ADDQ $512, DI
	DECQ R8
	JNZ openNext
	FINISH
	RET
