// Package block is the encrypted volume engine: block devices whose bytes at rest are
// sealed with AES-256-GCM, 4 KiB at a time, in a log-structured format that notices when it is lied to.
//
// What it promises:
//
//   - Secrecy: without the data key, files of a volume reveal its size, and how much is
//     written when. No key stream is ever used twice.
//   - Integrity: a flipped bit, a block put elsewhere (in the volume, or in another one), an old
//     block, an old map page, or (with an Anchor) a whole older volume is found. What was asked for is
//     either what was last written, or an error that Is ErrCorrupt; never other data.
//   - Crash consistency: after the death of this process nothing that was acknowledged is
//     lost. After the death of the host, the volume holds all that was flushed, and of the rest exactly a prefix
//     of the writes in their order.
//   - Durability: Flush returns when it is durable. When a sync fails nothing is guessed:
//     every later call fails with ErrFailed until the volume is opened again.
//   - Thinness: Discard and WriteZeroes give space back; what is dead is removed, what is
//     mostly dead is compacted in the background: a volume keeps within about 1.5 times what is alive in it,
//     and slows writers down rather than grow beyond. A full disk is ErrNoSpace and loses nothing.
//
// # Use
//
//	anchor, err := block.Create(dir, block.Options{VolumeID: id, SizeBytes: size, Key: key})
//	v, err := block.Open(dir, block.Options{Key: key, Anchor: anchor, OnAnchor: pin})
//	pin(v.Anchor())              // Open began a new epoch: pin it before writing
//	v.WriteAt(p, off); v.Flush()
//	err = v.Close()              // pin v.Anchor() once more: now even a cut tail is noticed
//
// Volume is a Device. Package nbd exports a Device over NBD; package volumed is the
// process that holds the keys. The format is described byte by byte in docs/formats/volume.md.
//
// What an anchor cannot see: while a volume is attached, or after its process died, the log behind
// the last checkpoint (at most Options.CheckpointBytes, or the writes of
// Options.CheckpointInterval) can be cut off by someone who can write the files,
// without a trace. Damage within it is noticed, as long as a later part proves it was flushed.
package block
