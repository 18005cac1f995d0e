package compute

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
)

// Painted looks at a Screendump and says whether a desktop is on it, and why it thinks so. It stands beside the guest's own word
// (Status.GuestReady), not for it: it tells a desktop from a dark screen, text of the firmware, boot loader or kernel, and one
// flat colour, whatever the guest is.
//
// A painted desktop fills most of a graphics screen with something other than black and shows many colours; text shows two
// or three, mostly black.
func Painted(pngFile []byte) (bool, string) {
	cfg, err := png.DecodeConfig(bytes.NewReader(pngFile))
	if err != nil {
		return false, fmt.Sprintf("not a PNG: %v", err)
	}
	if cfg.Width < 640 || cfg.Height < 480 || cfg.Height == 400 {
		return false, fmt.Sprintf("%dx%d is a text or boot screen", cfg.Width, cfg.Height)
	}
	img, err := png.Decode(bytes.NewReader(pngFile))
	if err != nil {
		return false, fmt.Sprintf("not a PNG: %v", err)
	}
	s := survey(img)
	d := fmt.Sprintf("%dx%d, %d %% dark, %d %% of one colour, %d colours", cfg.Width, cfg.Height, s.dark*100/s.n, s.most*100/s.n, s.colours)
	switch {
	case s.dark*100 > 60*s.n:
		return false, "dark: " + d
	case s.most*100 > 97*s.n:
		return false, "one flat colour: " + d
	case s.colours < 24:
		return false, "too few colours: " + d
	}
	return true, d
}

type colourSurvey struct{ n, dark, most, colours int }

// survey samples every second pixel of every second line. Colours are counted in steps of 8, so that noise and
// gradients count little.
func survey(img image.Image) colourSurvey {
	count := map[uint32]int{}
	var s colourSurvey
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y += 2 {
		for x := b.Min.X; x < b.Max.X; x += 2 {
			r, g, bl, _ := img.At(x, y).RGBA()
			r, g, bl = r>>8, g>>8, bl>>8
			s.n++
			if r < 16 && g < 16 && bl < 16 {
				s.dark++
			}
			count[(r>>3)<<10|(g>>3)<<5|bl>>3]++
		}
	}
	for _, n := range count {
		s.most = max(s.most, n)
	}
	s.colours = len(count)
	return s
}
