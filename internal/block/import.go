package block

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Import copies size bytes of a raw image (or of another Volume: re-encryption) into
// dst, block by block, and flushes it. A qcow2 image is converted to raw first.
// Blocks of zeros are skipped, so dst must be new (all holes). progress may be nil.
func Import(ctx context.Context, dst Device, src io.ReaderAt, size int64, progress func(done, total int64)) error {
	if size > dst.Size() {
		return fmt.Errorf("import: the image has %d bytes, the volume only %d", size, dst.Size())
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s, ok := src.(interface{ NextData(int64) (int64, error) }); ok {
			next, err := s.NextData(off)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil && next > off {
				off = next / BlockSize * BlockSize
			}
		}
		p := buf[:min(int64(len(buf)), size-off)]
		if _, err := src.ReadAt(p, off); err != nil && !(errors.Is(err, io.EOF) && off+int64(len(p)) == size) {
			return fmt.Errorf("import: read image at %d: %w", off, err)
		}
		for i := 0; i < len(p); {
			k := min(BlockSize, len(p)-i)
			if isZero(p[i : i+k]) {
				i += k
				continue
			}
			j := i + k
			for j < len(p) && !isZero(p[j:min(j+BlockSize, len(p))]) {
				j = min(j+BlockSize, len(p))
			}
			if _, err := dst.WriteAt(p[i:j], off+int64(i)); err != nil {
				return fmt.Errorf("import: %w", err)
			}
			i = j
		}
		off += int64(len(p))
		if progress != nil {
			progress(off, size)
		}
	}
	if progress != nil {
		progress(size, size)
	}
	if err := dst.Flush(); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	return nil
}
