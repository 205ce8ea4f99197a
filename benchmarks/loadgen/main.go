// Loadgen sends the same request again and again and measures the responses. It is compiled, and it
// does not decode what it receives, so that it is never the bottleneck of a benchmark.
//
//	loadgen -kind grpc-stream -address 127.0.0.1:50051 -path /autoglm.v1.Inference/GenerateStream \
//	        -body request.bin -clients 8 -requests 64
//
// With several files in -body (separated by commas) each request takes one of them, in an order that
// is the same in every run.
//
// With -rate 0 the loop is closed: each client sends its next request when the last one has ended,
// until -requests are sent or -limit is over.
// With -rate R requests start R times a second whether or not others have ended, and latency counts
// from the moment a request should have started.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type options struct {
	kind, address, path, body string
	headers                   headers
	clients, requests, warmup int
	connections               int
	rate                      float64
	timeout                   time.Duration
	limit                     time.Duration
	gapsFrom                  time.Duration
}

// headers are names and values by turns, as they go over the wire.
type headers []string

func (h *headers) String() string { return strings.Join(*h, ",") }

func (h *headers) Set(given string) error {
	name, value, found := strings.Cut(given, ":")
	if !found {
		return fmt.Errorf("%q is not NAME:VALUE", given)
	}
	*h = append(*h, name, value)
	return nil
}

// outcome is one request. Times are relative to its start.
type outcome struct {
	first, last time.Duration
	// The longest pause between two messages.
	gap time.Duration
	// All pauses from gapsFrom on, where that is not 0.
	gapsFrom time.Duration
	gaps     []float32
	messages int
	bytes    int
	tokens   int
	err      error
}

// status is how a failed request ended: an HTTP status or a gRPC code.
type status string

func (s status) Error() string { return string(s) }

// came notes another message.
func (o *outcome) came(now time.Duration, size int) {
	if o.messages == 0 {
		o.first = now
	} else {
		o.gap = max(o.gap, now-o.last)
		if o.gapsFrom > 0 && now > o.gapsFrom {
			o.gaps = append(o.gaps, float32((now - o.last).Seconds()))
		}
	}
	o.last = now
	o.messages++
	o.bytes += size
}

// sender sends one request and reads its response to the end. Called from many goroutines.
type sender interface {
	send(client int, body []byte, started time.Time) outcome
	close()
}

type summary struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// report has times in seconds.
type report struct {
	Kind       string  `json:"kind"`
	Clients    int     `json:"clients"`
	Rate       float64 `json:"rate"`
	Requests   int     `json:"requests"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	// Failed requests by HTTP status or gRPC code; `error` is neither.
	Statuses   map[string]int `json:"statuses"`
	Seconds    float64        `json:"seconds"`
	Messages   int            `json:"messages"`
	Bytes      int            `json:"bytes"`
	Tokens     int            `json:"tokens"`
	CPUSeconds float64        `json:"cpu_seconds"`
	First      summary        `json:"time_to_first_message"`
	Latency    summary        `json:"latency"`
	Gap        summary        `json:"longest_gap"`
	Gaps       summary        `json:"gaps"`
}

func main() {
	var o options
	flag.StringVar(&o.kind, "kind", "grpc-stream", "grpc-stream, grpc-unary, rest-stream or rest-unary")
	flag.StringVar(&o.address, "address", "127.0.0.1:50051", "HOST:PORT")
	flag.StringVar(&o.path, "path", "/autoglm.v1.Inference/GenerateStream", "gRPC method or URL path")
	flag.StringVar(&o.body, "body", "", "files with requests: serialised messages or JSON")
	flag.Var(&o.headers, "header", "NAME:VALUE to send with each request, may be repeated; NAME-bin:BASE64")
	flag.IntVar(&o.clients, "clients", 1, "requests under way at once (closed loop)")
	flag.IntVar(&o.requests, "requests", 10, "requests to measure")
	flag.IntVar(&o.warmup, "warmup", 0, "requests to send first and not measure")
	flag.IntVar(&o.connections, "connections", 4, "gRPC connections to spread clients over")
	flag.Float64Var(&o.rate, "rate", 0, "requests started each second; 0 for a closed loop")
	flag.DurationVar(&o.limit, "limit", 0, "start no request after so long (closed loop); 0 for never")
	flag.DurationVar(&o.gapsFrom, "gaps-from", 0, "report all pauses between a stream's messages from so long after its start")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "for each request")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	w, err := readWork(o.body)
	if err != nil {
		return err
	}
	s, err := newSender(o)
	if err != nil {
		return err
	}
	defer s.close()
	if o.warmup > 0 {
		closedLoop(s, w, o.clients, o.warmup, o.limit)
	}
	before, begin := cpuSeconds(), time.Now()
	var outcomes []outcome
	if o.rate > 0 {
		outcomes = openLoop(s, w, o.rate, o.requests)
	} else {
		outcomes = closedLoop(s, w, o.clients, o.requests, o.limit)
	}
	r := summarise(o, outcomes, time.Since(begin).Seconds())
	r.CPUSeconds = cpuSeconds() - before
	return json.NewEncoder(os.Stdout).Encode(r)
}

// work is what is sent: one of the bodies for each request.
type work [][]byte

func readWork(files string) (work, error) {
	var w work
	for _, file := range strings.Split(files, ",") {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		w = append(w, body)
	}
	return w, nil
}

func (w work) of(request int) []byte {
	return w[rand.New(rand.NewPCG(1, uint64(request))).IntN(len(w))]
}

func newSender(o options) (sender, error) {
	switch o.kind {
	case "grpc-stream", "grpc-unary":
		return newGrpcSender(o)
	case "rest-stream", "rest-unary":
		return newRestSender(o), nil
	}
	return nil, fmt.Errorf("-kind %q is none of grpc-stream, grpc-unary, rest-stream, rest-unary", o.kind)
}

func closedLoop(s sender, w work, clients, requests int, limit time.Duration) []outcome {
	begin, next := time.Now(), atomic.Int64{}
	byClient := make([][]outcome, clients)
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for limit == 0 || time.Since(begin) < limit {
				i := int(next.Add(1)) - 1
				if i >= requests {
					return
				}
				one := s.send(client, w.of(i), time.Now())
				byClient[client] = append(byClient[client], one)
			}
		})
	}
	all.Wait()
	return slices.Concat(byClient...)
}

func openLoop(s sender, w work, rate float64, requests int) []outcome {
	outcomes := make([]outcome, requests)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range requests {
		due := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		all.Go(func() { outcomes[i] = s.send(i, w.of(i), due) })
	}
	all.Wait()
	return outcomes
}

func summarise(o options, outcomes []outcome, seconds float64) report {
	r := report{Kind: o.kind, Clients: o.clients, Rate: o.rate, Requests: len(outcomes), Seconds: seconds}
	r.Statuses = map[string]int{}
	var first, latency, gap, gaps []float64
	for _, one := range outcomes {
		r.Messages += one.messages
		r.Bytes += one.bytes
		r.Tokens += one.tokens
		if one.err != nil {
			r.Errors++
			r.FirstError = one.err.Error()
			r.Statuses[statusOf(one.err)]++
			continue
		}
		first = append(first, one.first.Seconds())
		latency = append(latency, one.last.Seconds())
		gap = append(gap, one.gap.Seconds())
		for _, pause := range one.gaps {
			gaps = append(gaps, float64(pause))
		}
	}
	r.First, r.Latency, r.Gap = summaryOf(first), summaryOf(latency), summaryOf(gap)
	r.Gaps = summaryOf(gaps)
	return r
}

func statusOf(err error) string {
	var known status
	if errors.As(err, &known) {
		return string(known)
	}
	return "error"
}

func summaryOf(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	sort.Float64s(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	at := func(q float64) float64 { return values[int(q*float64(len(values)-1)+0.5)] }
	return summary{sum / float64(len(values)), at(0.5), at(0.9), at(0.99), at(0.999), at(1)}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
