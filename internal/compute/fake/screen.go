package fake

import (
	"bytes"
	"hash/fnv"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	"github.com/sealdesk/sealdesk/internal/compute"
)

// screen draws what the machine shows: a dark text screen while it boots, then a wallpaper, a panel and one bar for each
// line typed, so that typing changes the picture.
func screen(m *machine) ([]byte, error) {
	w, h := m.st.Spec.Display.Width, m.st.Spec.Display.Height
	if !m.st.GuestReady {
		w, h = 720, 400
	}
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	fill := func(r image.Rectangle, c color.Color) {
		draw.Draw(img, r, image.NewUniform(c), image.Point{}, draw.Src)
	}
	fill(img.Bounds(), color.Black)
	if !m.st.GuestReady {
		for y := 16; y < 96; y += 16 {
			fill(image.Rect(8, y, 8+y*4, y+8), color.Gray{Y: 170})
		}
	} else {
		for y := range h {
			for x := range w {
				img.SetRGBA(x, y, color.RGBA{R: uint8(20 + 60*x/w), G: uint8(60 + 120*y/h), B: uint8(120 + 100*(x+y)/(w+h)), A: 255})
			}
		}
		fill(image.Rect(0, 0, w, 28), color.RGBA{R: 40, G: 44, B: 52, A: 255})
		text := m.typed.String()
		for i, line := range bytes.Split([]byte(text), []byte("\n")) {
			sum := fnv.New32a()
			_, _ = sum.Write(line)
			v := sum.Sum32()
			y := 60 + (i%40)*16
			fill(image.Rect(100, y, 110+10*min(len(line), 100), y+12), color.RGBA{R: uint8(v), G: uint8(v >> 8), B: uint8(v >> 16), A: 255})
		}
	}
	if m.st.State == compute.StatePanicked {
		fill(image.Rect(0, h/2, w, h/2+40), color.RGBA{R: 200, A: 255})
	}
	var b bytes.Buffer
	err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img)
	return b.Bytes(), err
}
