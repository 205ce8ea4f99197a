// Mockpod responds as a pod does, at once, with messages that it is given: what is measured in front
// of it is never itself. It decodes nothing; a request says how many tokens it wants by a word in its
// prompt: mock-N at once, mock-NpM with M milliseconds before each, mock-NgK with K in each message.
//
//	mockpod -grpc 127.0.0.1:50061 -http 127.0.0.1:8061 -responses DIRECTORY
//
// The directory holds messages of autoglm.v1: `models`, `load`, `chunk-K`, and for each N that is
// last comes `end-N`, the last chunk, and `unary-N`. `models.json` is what REST lists.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

const (
	// As vLLM writes chats.
	names = "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion%s\"," +
		"\"created\":1790000000,\"model\":\"instant\","
	delta = "data: %s\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}\n\n"
	usage = "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":%d,\"total_tokens\":%d}}"
	whole = "%s\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"}," +
		"\"logprobs\":null,\"finish_reason\":\"length\"}]," + usage
	end = "data: %s\"choices\":[]," + usage + "\n\ndata: [DONE]\n\n"
)

var streaming = regexp.MustCompile(`"stream":\s*true`)

// raw passes messages through as bytes.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

type responses map[string][]byte

func read(directory string) (responses, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	found := responses{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err != nil {
			return nil, err
		}
		found[entry.Name()] = data
	}
	return found, nil
}

// order is what a request wants.
type order struct {
	tokens, together int
	pace             time.Duration
}

// ordered reads the first mock-NpMgK in a request.
func ordered(request []byte) order {
	_, rest, _ := bytes.Cut(request, []byte("mock-"))
	count, rest := leading(rest)
	pace, rest := leading(bytes.TrimPrefix(rest, []byte("p")))
	together, _ := leading(bytes.TrimPrefix(rest, []byte("g")))
	return order{count, max(1, together), time.Duration(pace) * time.Millisecond}
}

func leading(text []byte) (int, []byte) {
	length := 0
	for length < len(text) && text[length] >= '0' && text[length] <= '9' {
		length++
	}
	number, _ := strconv.Atoi(string(text[:length]))
	return number, text[length:]
}

// each calls send for each message of a response, in its time.
func (o order) each(send func() error) error {
	next := time.Now()
	for range o.tokens / o.together {
		if o.pace > 0 {
			next = next.Add(o.pace)
			time.Sleep(time.Until(next))
		}
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}

func (r responses) serve(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	path, _ := grpc.MethodFromServerStream(stream)
	method := path[strings.LastIndex(path, "/")+1:]
	switch method {
	case "ListModels":
		return r.send(stream, "models")
	case "WatchLoad":
		// Who is silent for longer leaves the pool.
		for range time.Tick(time.Second / 2) {
			if err := r.send(stream, "load"); err != nil {
				return err
			}
		}
	case "Generate":
		return r.send(stream, fmt.Sprintf("unary-%d", ordered(request).tokens))
	case "GenerateStream":
		wanted := ordered(request)
		chunk := fmt.Sprintf("chunk-%d", wanted.together)
		if err := wanted.each(func() error { return r.send(stream, chunk) }); err != nil {
			return err
		}
		return r.send(stream, fmt.Sprintf("end-%d", wanted.tokens))
	}
	return status.Error(codes.Unimplemented, method)
}

func (r responses) send(stream grpc.ServerStream, name string) error {
	message, found := r[name]
	if !found {
		return status.Errorf(codes.NotFound, "no response %q", name)
	}
	return stream.SendMsg(&message)
}

func complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	wanted := ordered(body)
	if !streaming.Match(body) {
		w.Header().Set("content-type", "application/json")
		text := strings.Repeat(" token", wanted.tokens)
		_, _ = fmt.Fprintf(w, whole, fmt.Sprintf(names, ""), text, wanted.tokens, wanted.tokens+4)
		return
	}
	w.Header().Set("content-type", "text/event-stream")
	controller := http.NewResponseController(w)
	chunk := fmt.Sprintf(names, ".chunk")
	content := "\"content\":\"" + strings.Repeat(" token", wanted.together) + "\""
	text := fmt.Sprintf(delta, chunk, content, "null")
	err = wanted.each(func() error {
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return controller.Flush()
	})
	if err == nil {
		_, _ = fmt.Fprintf(w, delta+end, chunk, "", "\"length\"", chunk, wanted.tokens, wanted.tokens+4)
	}
}

func main() {
	grpcAddress := flag.String("grpc", "127.0.0.1:50061", "where gRPC is served")
	httpAddress := flag.String("http", "127.0.0.1:8061", "where REST is served")
	directory := flag.String("responses", "", "directory of messages")
	flag.Parse()
	if err := serve(*grpcAddress, *httpAddress, *directory); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(grpcAddress, httpAddress, directory string) error {
	given, err := read(directory)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", grpcAddress)
	if err != nil {
		return err
	}
	// Gateways ping their pods often.
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(given.serve),
		grpc.MaxRecvMsgSize(64<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{PermitWithoutStream: true}),
	)
	http.HandleFunc("/v1/chat/completions", complete)
	// Other routers request these before they send anything.
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		_, _ = w.Write(given["models.json"])
	})
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- http.ListenAndServe(httpAddress, nil) }()
	return errors.Join(<-failed)
}
