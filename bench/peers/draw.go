package main

import (
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// draw writes the pictures of what was measured.
func (r *results) draw(dir string) error {
	for _, one := range []struct {
		file string
		draw func() (*plot.Plot, error)
	}{
		{"throughput.svg", r.throughput},
		{"latency.svg", r.latencies},
		{"memory.svg", func() (*plot.Plot, error) {
			keys := r.keysOf("W4")
			return r.bars("Memory a key, bytes, "+keys+" keys", "W4", "keys="+keys, "RAM-B/key", false)
		}},
		{"open.svg", func() (*plot.Plot, error) {
			keys := r.keysOf("W5")
			return r.bars("From opening to the first answer after a kill, ms, "+keys+" keys", "W5", "keys="+keys+"/killed", "ms", true)
		}},
	} {
		p, err := one.draw()
		if err != nil {
			return err
		}
		if p == nil { // not measured
			continue
		}
		if err := p.Save(18*vg.Centimeter, 11*vg.Centimeter, filepath.Join(dir, one.file)); err != nil {
			return err
		}
	}
	return nil
}

// keysOf is how many keys a workload began with: the number for which all peers have figures.
func (r *results) keysOf(workload string) string {
	for _, at := range r.settings(workload) {
		keys, _, _ := strings.Cut(strings.TrimPrefix(at, "keys="), "/")
		return keys
	}
	return ""
}

// palette tells neighbours apart in print and to the colour-blind; oncelog has the one that stands out.
var palette = []color.Color{
	color.RGBA{0x44, 0x77, 0xaa, 0xff}, color.RGBA{0x22, 0x88, 0x33, 0xff}, color.RGBA{0xcc, 0xbb, 0x44, 0xff}, color.RGBA{0x66, 0xcc, 0xee, 0xff},
	color.RGBA{0xaa, 0x33, 0x77, 0xff}, color.RGBA{0xbb, 0xbb, 0xbb, 0xff}, color.RGBA{0x88, 0x22, 0x55, 0xff}, color.RGBA{0x11, 0x77, 0x33, 0xff},
	color.RGBA{0x99, 0x99, 0x33, 0xff}, color.RGBA{0x33, 0x22, 0x88, 0xff}, color.RGBA{0xdd, 0xcc, 0x77, 0xff}, color.RGBA{0x88, 0xcc, 0xee, 0xff},
}

var oncelogRed = color.RGBA{0xee, 0x33, 0x33, 0xff}

func colourOf(peer string, i int) color.Color {
	switch peer {
	case "oncelog":
		return oncelogRed
	case "limit":
		return color.Black
	}
	return palette[i%len(palette)]
}

func (r *results) throughput() (*plot.Plot, error) {
	settings := r.settings("W1")
	if len(settings) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text = "Durable put-if-absent, operations a second"
	p.X.Label.Text, p.Y.Label.Text = "callers", "operations a second"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	var ticks []plot.Tick
	for _, n := range writers {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.TextStyle.Font.Size = font.Length(8)
	for i, peer := range r.peers("W1", settings[0], "ops/s") {
		var pts plotter.XYs
		for _, at := range settings {
			n, err := strconv.ParseFloat(strings.TrimPrefix(at, "writers="), 64)
			if err != nil {
				return nil, err
			}
			if f := r.figure("W1", at, peer, "ops/s"); f.known {
				pts = append(pts, plotter.XY{X: n, Y: f.median})
			}
		}
		line, dots, err := plotter.NewLinePoints(pts)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color = colourOf(peer, i), colourOf(peer, i)
		dots.Shape = draw.CircleGlyph{}
		if peer == "limit" {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		if peer == "oncelog" {
			line.Width = vg.Points(2.5)
		}
		p.Add(line, dots)
		p.Legend.Add(peer, line, dots)
	}
	p.X.Min, p.X.Max = 0.9, 300 // room for the numbers
	return p, nil
}

// latencies has for each peer the median, the 99th and the 99.9th percentile at 64 callers.
func (r *results) latencies() (*plot.Plot, error) {
	const at = "writers=64"
	peers := r.peers("W1", at, "p50-us")
	if len(peers) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text = "Latency of a durable put-if-absent at 64 callers, µs"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	for i, unit := range []string{"p50-us", "p99-us", "p99.9-us"} {
		var pts plotter.XYs
		for x, peer := range peers {
			pts = append(pts, plotter.XY{X: float64(x), Y: math.Max(r.figure("W1", at, peer, unit).median, 1)})
		}
		dots, err := plotter.NewScatter(pts)
		if err != nil {
			return nil, err
		}
		dots.Shape = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}}[i]
		dots.Color, dots.Radius = []color.Color{palette[0], palette[4], oncelogRed}[i], vg.Points(4)
		p.Add(dots)
		p.Legend.Add(strings.TrimSuffix(unit, "-us"), dots)
	}
	p.Add(plotter.NewGrid())
	slant(p, peers)
	return p, nil
}

// slant writes the peers' names below the axis, at an angle at which they have room.
func slant(p *plot.Plot, peers []string) {
	p.NominalX(peers...)
	p.X.Tick.Label.Rotation = 0.6
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XRight, draw.YTop
	p.X.Min, p.X.Max = -0.6, float64(len(peers))-0.4
}

// bars has one bar a peer, with its number. A logarithmic scale is for figures that lie powers of ten apart.
func (r *results) bars(title, workload, at, unit string, logarithmic bool) (*plot.Plot, error) {
	peers := r.peers(workload, at, unit)
	if len(peers) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text = title
	p.Add(plotter.NewGrid())
	labels := plotter.XYLabels{}
	least, most := math.Inf(1), 0.0
	for _, peer := range peers {
		v := r.figure(workload, at, peer, unit).median
		least, most = math.Min(least, math.Max(v, 0.1)), math.Max(most, v)
	}
	floor, above := 0.0, func(v float64) float64 { return v + most*0.015 }
	p.Y.Max = most * 1.1
	if logarithmic {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		floor, above = math.Pow(10, math.Floor(math.Log10(least))), func(v float64) float64 { return v * 1.06 }
		p.Y.Max = most * 2
	}
	for i, peer := range peers {
		v := math.Max(r.figure(workload, at, peer, unit).median, floor)
		bar, err := plotter.NewPolygon(plotter.XYs{{X: float64(i) - 0.35, Y: floor}, {X: float64(i) + 0.35, Y: floor}, {X: float64(i) + 0.35, Y: v}, {X: float64(i) - 0.35, Y: v}})
		if err != nil {
			return nil, err
		}
		bar.Color = palette[0]
		if peer == "oncelog" {
			bar.Color = oncelogRed
		}
		bar.LineStyle.Width = 0
		p.Add(bar)
		labels.XYs = append(labels.XYs, plotter.XY{X: float64(i) - 0.3, Y: above(v)})
		labels.Labels = append(labels.Labels, short3(v))
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	p.Add(text)
	slant(p, peers)
	p.Y.Min = floor
	return p, nil
}
