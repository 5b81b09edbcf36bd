package reference_test

import (
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// An instrument is a metric as its service makes it.
type instrument struct {
	meter, name, kind, unit, description string
}

// A recorder is a meter provider that notes which instruments are made.
type recorder struct {
	noop.MeterProvider

	made []instrument
}

// Meter implements metric.MeterProvider.
func (r *recorder) Meter(name string, _ ...metric.MeterOption) metric.Meter {
	return &meter{r: r, name: name}
}

// meter notes instruments of every kind.
type meter struct {
	noop.Meter

	r    *recorder
	name string
}

func (m *meter) add(name, kind, unit, description string) {
	m.r.made = append(m.r.made, instrument{m.name, name, kind, unit, description})
}

func (m *meter) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(o...)
	m.add(name, "counter", c.Unit(), c.Description())
	return m.Meter.Int64Counter(name, o...)
}

func (m *meter) Int64UpDownCounter(name string, o ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	c := metric.NewInt64UpDownCounterConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Int64UpDownCounter(name, o...)
}

func (m *meter) Int64Histogram(name string, o ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	c := metric.NewInt64HistogramConfig(o...)
	m.add(name, "histogram", c.Unit(), c.Description())
	return m.Meter.Int64Histogram(name, o...)
}

func (m *meter) Int64Gauge(name string, o ...metric.Int64GaugeOption) (metric.Int64Gauge, error) {
	c := metric.NewInt64GaugeConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Int64Gauge(name, o...)
}

func (m *meter) Int64ObservableCounter(name string, o ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	c := metric.NewInt64ObservableCounterConfig(o...)
	m.add(name, "counter", c.Unit(), c.Description())
	return m.Meter.Int64ObservableCounter(name, o...)
}

func (m *meter) Int64ObservableUpDownCounter(name string, o ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	c := metric.NewInt64ObservableUpDownCounterConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Int64ObservableUpDownCounter(name, o...)
}

func (m *meter) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	c := metric.NewInt64ObservableGaugeConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Int64ObservableGauge(name, o...)
}

func (m *meter) Float64Counter(name string, o ...metric.Float64CounterOption) (metric.Float64Counter, error) {
	c := metric.NewFloat64CounterConfig(o...)
	m.add(name, "counter", c.Unit(), c.Description())
	return m.Meter.Float64Counter(name, o...)
}

func (m *meter) Float64UpDownCounter(name string, o ...metric.Float64UpDownCounterOption) (metric.Float64UpDownCounter, error) {
	c := metric.NewFloat64UpDownCounterConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Float64UpDownCounter(name, o...)
}

func (m *meter) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(o...)
	m.add(name, "histogram", c.Unit(), c.Description())
	return m.Meter.Float64Histogram(name, o...)
}

func (m *meter) Float64Gauge(name string, o ...metric.Float64GaugeOption) (metric.Float64Gauge, error) {
	c := metric.NewFloat64GaugeConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Float64Gauge(name, o...)
}

func (m *meter) Float64ObservableCounter(name string, o ...metric.Float64ObservableCounterOption) (metric.Float64ObservableCounter, error) {
	c := metric.NewFloat64ObservableCounterConfig(o...)
	m.add(name, "counter", c.Unit(), c.Description())
	return m.Meter.Float64ObservableCounter(name, o...)
}

func (m *meter) Float64ObservableUpDownCounter(name string, o ...metric.Float64ObservableUpDownCounterOption) (metric.Float64ObservableUpDownCounter, error) {
	c := metric.NewFloat64ObservableUpDownCounterConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Float64ObservableUpDownCounter(name, o...)
}

func (m *meter) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(o...)
	m.add(name, "gauge", c.Unit(), c.Description())
	return m.Meter.Float64ObservableGauge(name, o...)
}
