package program

import (
	"bufio"
	"context"
	"strconv"
	"strings"
)

// Values are what all processes together say of a metric, one for each set of
// labels. A process that does not answer says nothing.
func (f Fleet) Values(ctx context.Context, name string) []float64 {
	var values []float64
	for _, p := range f.Processes {
		_, text, err := p.Admin(ctx, "/metrics")
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
			rest, ok := strings.CutPrefix(lines.Text(), name)
			if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
				continue
			}
			if v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64); err == nil {
				values = append(values, v)
			}
		}
	}
	return values
}

// Sum adds up the values of a metric.
func (f Fleet) Sum(ctx context.Context, name string) float64 {
	sum := 0.0
	for _, v := range f.Values(ctx, name) {
		sum += v
	}
	return sum
}
