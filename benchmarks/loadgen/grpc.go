package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of autoglm.v1: usage in GenerateChunk and ChatChunk, in the unary responses, and
// completion_tokens in Usage.
const (
	chunkUsage       = 8
	responseUsage    = 4
	completionTokens = 2
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

type grpcSender struct {
	channels []*grpc.ClientConn
	method   string
	metadata metadata.MD
	unary    bool
	timeout  time.Duration
	// See outcome.
	gapsFrom time.Duration
}

func newGrpcSender(o options) (sender, error) {
	s := &grpcSender{method: o.path, unary: o.kind == "grpc-unary", timeout: o.timeout, gapsFrom: o.gapsFrom}
	s.metadata = metadata.MD{}
	for pair := range slices.Chunk(o.headers, 2) {
		name, value := pair[0], pair[1]
		if strings.HasSuffix(name, "-bin") {
			// gRPC encodes it itself.
			decoded, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, fmt.Errorf("-header %s: %w", name, err)
			}
			value = string(decoded)
		}
		s.metadata.Append(name, value)
	}
	for range max(1, min(o.connections, o.clients)) {
		channel, err := grpc.NewClient(
			"passthrough:///"+o.address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<24),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)),
		)
		if err != nil {
			return nil, err
		}
		s.channels = append(s.channels, channel)
	}
	return s, nil
}

func (s *grpcSender) close() {
	for _, channel := range s.channels {
		_ = channel.Close()
	}
}

func (s *grpcSender) send(client int, body []byte, started time.Time) outcome {
	ctx := metadata.NewOutgoingContext(context.Background(), s.metadata)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	channel := s.channels[client%len(s.channels)]
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: !s.unary}, s.method)
	if err == nil {
		err = stream.SendMsg(&body)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return outcome{err: named(err)}
	}
	return s.receive(stream, started)
}

func (s *grpcSender) receive(stream grpc.ClientStream, started time.Time) outcome {
	result := outcome{gapsFrom: s.gapsFrom}
	var message []byte
	for {
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) || (err == nil && s.unary) {
			result.last = time.Since(started)
			if s.unary {
				result.messages, result.bytes, result.first = 1, len(message), result.last
			}
			break
		}
		if err != nil {
			result.err = named(err)
			return result
		}
		result.came(time.Since(started), len(message))
	}
	field := protowire.Number(chunkUsage)
	if s.unary {
		field = responseUsage
	}
	result.tokens = int(number(submessage(message, field), completionTokens))
	if result.messages == 0 {
		result.err = fmt.Errorf("the stream ended without a message")
	}
	return result
}

// named keeps a gRPC error's code beside its text.
func named(err error) error {
	return fmt.Errorf("%w: %w", status(grpcstatus.Code(err).String()), err)
}

// submessage is the bytes of a field, nil when it is not there.
func submessage(message []byte, field protowire.Number) []byte {
	var found []byte
	each(message, func(n protowire.Number, t protowire.Type, value []byte) {
		if n == field && t == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(value)
		}
	})
	return found
}

func number(message []byte, field protowire.Number) uint64 {
	var found uint64
	each(message, func(n protowire.Number, t protowire.Type, value []byte) {
		if n == field && t == protowire.VarintType {
			found, _ = protowire.ConsumeVarint(value)
		}
	})
	return found
}

func each(message []byte, visit func(protowire.Number, protowire.Type, []byte)) {
	for len(message) > 0 {
		n, t, length := protowire.ConsumeTag(message)
		if length < 0 {
			return
		}
		message = message[length:]
		visit(n, t, message)
		length = protowire.ConsumeFieldValue(n, t, message)
		if length < 0 {
			return
		}
		message = message[length:]
	}
}
