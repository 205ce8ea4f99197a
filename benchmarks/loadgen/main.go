// Loadgen sends the same request again and again and measures the answers. It is compiled, and it
// does not decode what it receives, so that it is never the bottleneck of a benchmark.
//
//	loadgen -kind grpc-stream -address 127.0.0.1:50051 -path /autoglm.v1.Inference/GenerateStream \
//	        -body request.bin -clients 8 -requests 64
//
// With -rate 0 the loop is closed: each client sends its next request when the last one has ended.
// With -rate R requests start R times a second whether or not others have ended, and latency counts
// from the moment a request should have started.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"
)

type options struct {
	kind, address, path, body string
	clients, requests, warmup int
	connections               int
	rate                      float64
	timeout                   time.Duration
}

// outcome is one request. Times are relative to its start.
type outcome struct {
	first, last time.Duration
	messages    int
	bytes       int
	tokens      int
	err         error
}

// sender sends one request and reads its answer to the end. Called from many goroutines.
type sender interface {
	send(client int, started time.Time) outcome
	close()
}

type summary struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
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
	Seconds    float64 `json:"seconds"`
	Messages   int     `json:"messages"`
	Bytes      int     `json:"bytes"`
	Tokens     int     `json:"tokens"`
	CPUSeconds float64 `json:"cpu_seconds"`
	First      summary `json:"time_to_first_message"`
	Latency    summary `json:"latency"`
}

func main() {
	var o options
	flag.StringVar(&o.kind, "kind", "grpc-stream", "grpc-stream, grpc-unary, rest-stream or rest-unary")
	flag.StringVar(&o.address, "address", "127.0.0.1:50051", "HOST:PORT")
	flag.StringVar(&o.path, "path", "/autoglm.v1.Inference/GenerateStream", "gRPC method or URL path")
	flag.StringVar(&o.body, "body", "", "file with the request: a serialised message or JSON")
	flag.IntVar(&o.clients, "clients", 1, "requests under way at once (closed loop)")
	flag.IntVar(&o.requests, "requests", 10, "requests to measure")
	flag.IntVar(&o.warmup, "warmup", 0, "requests to send first and not measure")
	flag.IntVar(&o.connections, "connections", 4, "gRPC connections to spread clients over")
	flag.Float64Var(&o.rate, "rate", 0, "requests started each second; 0 for a closed loop")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "for each request")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	body, err := os.ReadFile(o.body)
	if err != nil {
		return err
	}
	s, err := newSender(o, body)
	if err != nil {
		return err
	}
	defer s.close()
	if o.warmup > 0 {
		closedLoop(s, o.clients, o.warmup)
	}
	before, begin := cpuSeconds(), time.Now()
	var outcomes []outcome
	if o.rate > 0 {
		outcomes = openLoop(s, o.rate, o.requests)
	} else {
		outcomes = closedLoop(s, o.clients, o.requests)
	}
	r := summarise(o, outcomes, time.Since(begin).Seconds())
	r.CPUSeconds = cpuSeconds() - before
	return json.NewEncoder(os.Stdout).Encode(r)
}

func newSender(o options, body []byte) (sender, error) {
	switch o.kind {
	case "grpc-stream", "grpc-unary":
		return newGrpcSender(o, body)
	case "rest-stream", "rest-unary":
		return newRestSender(o, body), nil
	}
	return nil, fmt.Errorf("-kind %q is none of grpc-stream, grpc-unary, rest-stream, rest-unary", o.kind)
}

func closedLoop(s sender, clients, requests int) []outcome {
	outcomes := make([]outcome, requests)
	next := make(chan int, requests)
	for i := range requests {
		next <- i
	}
	close(next)
	var all sync.WaitGroup
	for client := range min(clients, requests) {
		all.Go(func() {
			for i := range next {
				outcomes[i] = s.send(client, time.Now())
			}
		})
	}
	all.Wait()
	return outcomes
}

func openLoop(s sender, rate float64, requests int) []outcome {
	outcomes := make([]outcome, requests)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range requests {
		due := begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		all.Go(func() { outcomes[i] = s.send(i, due) })
	}
	all.Wait()
	return outcomes
}

func summarise(o options, outcomes []outcome, seconds float64) report {
	r := report{Kind: o.kind, Clients: o.clients, Rate: o.rate, Requests: len(outcomes), Seconds: seconds}
	var first, latency []float64
	for _, one := range outcomes {
		r.Messages += one.messages
		r.Bytes += one.bytes
		r.Tokens += one.tokens
		if one.err != nil {
			r.Errors++
			r.FirstError = one.err.Error()
			continue
		}
		first = append(first, one.first.Seconds())
		latency = append(latency, one.last.Seconds())
	}
	r.First, r.Latency = summaryOf(first), summaryOf(latency)
	return r
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
	return summary{sum / float64(len(values)), at(0.5), at(0.9), at(0.99), at(1)}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
