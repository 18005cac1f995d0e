package vaes

import "golang.org/x/sys/cpu"

var supported = cpu.X86.HasAES && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL &&
	cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ

// expandKey computes the round keys (FIPS 197, 5.2).
//
//go:noescape
func expandKey(key *[keySize]byte, out *[rounds + 1][16]byte)

// encrypt encrypts one AES block in place.
//
//go:noescape
func encrypt(s *schedule, block *[16]byte)

// dot multiplies in POLYVAL's field: dst = a·b·x^-128.
//
//go:noescape
func dot(dst, a, b *[16]byte)

// seal encrypts src into dst, which may be the same memory, and computes the tag.
//
//go:noescape
func seal(s *schedule, nonce *[nonceSize]byte, aad *[AADSize]byte, dst, src *[BlockSize]byte, tag *[tagSize]byte)

// open decrypts src into dst, which may be the same memory, and computes the tag that src should have.
//
//go:noescape
func open(s *schedule, nonce *[nonceSize]byte, aad *[AADSize]byte, dst, src *[BlockSize]byte, tag *[tagSize]byte)
