// Mockpod answers as a pod does, at once, with messages that it is given: what is measured in front
// of it is never itself. It decodes nothing; a request says how many tokens it wants by the model it
// names, mock-N.
//
//	mockpod -grpc 127.0.0.1:50061 -http 127.0.0.1:8061 -answers DIRECTORY
//
// The directory holds messages of autoglm.v1: `models`, `load`, `chunk`, and for each N that is
// asked for `end-N`, the last chunk, and `unary-N`.
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
	event = "data: {\"choices\":[{\"index\":0,\"text\":\" token\"}]}\n\n"
	end   = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n"
	whole = "{\"choices\":[{\"index\":0,\"text\":\"%s\",\"finish_reason\":\"length\"}]," +
		"\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":%d}}"
)

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

type answers map[string][]byte

func read(directory string) (answers, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	found := answers{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err != nil {
			return nil, err
		}
		found[entry.Name()] = data
	}
	return found, nil
}

// wanted is the N of the first mock-N in a request.
func wanted(request []byte) int {
	_, rest, _ := bytes.Cut(request, []byte("mock-"))
	length := 0
	for length < len(rest) && rest[length] >= '0' && rest[length] <= '9' {
		length++
	}
	count, _ := strconv.Atoi(string(rest[:length]))
	return count
}

func (a answers) serve(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	path, _ := grpc.MethodFromServerStream(stream)
	method := path[strings.LastIndex(path, "/")+1:]
	switch method {
	case "ListModels":
		return a.send(stream, "models")
	case "WatchLoad":
		// Who is silent for longer leaves the pool.
		for range time.Tick(time.Second / 2) {
			if err := a.send(stream, "load"); err != nil {
				return err
			}
		}
	case "Generate":
		return a.send(stream, fmt.Sprintf("unary-%d", wanted(request)))
	case "GenerateStream":
		count := wanted(request)
		for range count {
			if err := a.send(stream, "chunk"); err != nil {
				return err
			}
		}
		return a.send(stream, fmt.Sprintf("end-%d", count))
	}
	return status.Error(codes.Unimplemented, method)
}

func (a answers) send(stream grpc.ServerStream, name string) error {
	message, found := a[name]
	if !found {
		return status.Errorf(codes.NotFound, "no answer %q", name)
	}
	return stream.SendMsg(&message)
}

func complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	count := wanted(body)
	if !bytes.Contains(body, []byte("\"stream\": true")) {
		w.Header().Set("content-type", "application/json")
		_, _ = fmt.Fprintf(w, whole, strings.Repeat(" token", count), count)
		return
	}
	w.Header().Set("content-type", "text/event-stream")
	controller := http.NewResponseController(w)
	for range count {
		if _, err := io.WriteString(w, event); err != nil {
			return
		}
		_ = controller.Flush()
	}
	_, _ = fmt.Fprintf(w, end, count)
}

func main() {
	grpcAddress := flag.String("grpc", "127.0.0.1:50061", "where gRPC is served")
	httpAddress := flag.String("http", "127.0.0.1:8061", "where REST is served")
	directory := flag.String("answers", "", "directory of messages")
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
	http.HandleFunc("/v1/completions", complete)
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- http.ListenAndServe(httpAddress, nil) }()
	return errors.Join(<-failed)
}
