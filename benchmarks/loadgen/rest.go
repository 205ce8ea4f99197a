package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

var usage = regexp.MustCompile(`"completion_tokens":\s*(\d+)`)

type restSender struct {
	client  *http.Client
	url     string
	headers headers
	stream  bool
	timeout time.Duration
	// See outcome.
	gapsFrom time.Duration
}

func newRestSender(o options) sender {
	transport := &http.Transport{MaxIdleConnsPerHost: max(o.clients, 1024), DisableCompression: true}
	return &restSender{
		client:  &http.Client{Transport: transport},
		url:     "http://" + o.address + o.path,
		headers: o.headers,
		stream:  o.kind == "rest-stream",
		timeout: o.timeout, gapsFrom: o.gapsFrom,
	}
}

func (s *restSender) close() { s.client.CloseIdleConnections() }

func (s *restSender) send(_ int, body []byte, started time.Time) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return outcome{err: err}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Request-Timeout-Seconds", strconv.FormatFloat(s.timeout.Seconds(), 'f', -1, 64))
	for pair := range slices.Chunk(s.headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := s.client.Do(request)
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return outcome{err: fmt.Errorf("%w: %s", status(strconv.Itoa(response.StatusCode)), text)}
	}
	if s.stream {
		return s.events(response.Body, started)
	}
	return s.whole(response.Body, started)
}

func (s *restSender) whole(body io.Reader, started time.Time) outcome {
	text, err := io.ReadAll(body)
	took := time.Since(started)
	return outcome{first: took, last: took, messages: 1, bytes: len(text), tokens: tokens(text), err: err}
}

// events counts server-sent events; usage is in the last one before [DONE].
func (s *restSender) events(body io.Reader, started time.Time) outcome {
	result := outcome{gapsFrom: s.gapsFrom}
	done := false
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	for lines.Scan() {
		line := lines.Bytes()
		if !bytes.HasPrefix(line, []byte("data:")) {
			continue
		}
		result.came(time.Since(started), len(line))
		done = bytes.HasSuffix(line, []byte("[DONE]"))
		if bytes.Contains(line, []byte(`"usage":{`)) || bytes.Contains(line, []byte(`"usage": {`)) {
			result.tokens = tokens(line)
		}
	}
	result.last = time.Since(started)
	result.err = lines.Err()
	if result.err == nil && !done {
		result.err = fmt.Errorf("the stream ended without [DONE]")
	}
	return result
}

func tokens(text []byte) int {
	match := usage.FindSubmatch(text)
	if match == nil {
		return 0
	}
	count, _ := strconv.Atoi(string(match[1]))
	return count
}
