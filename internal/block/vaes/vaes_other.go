//go:build !amd64

package vaes

const supported = false

func expandKey(*[keySize]byte, *[rounds + 1][16]byte) { panic("vaes: not supported") }
func encrypt(*schedule, *[16]byte)                    { panic("vaes: not supported") }
func dot(_, _, _ *[16]byte)                           { panic("vaes: not supported") }

func seal(*schedule, *[nonceSize]byte, *[AADSize]byte, *[BlockSize]byte, *[BlockSize]byte, *[tagSize]byte) {
	panic("vaes: not supported")
}

func open(*schedule, *[nonceSize]byte, *[AADSize]byte, *[BlockSize]byte, *[BlockSize]byte, *[tagSize]byte) {
	panic("vaes: not supported")
}
