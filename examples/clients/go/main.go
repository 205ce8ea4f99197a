// Command client calls Open-AutoGLM from a Go service that has nothing of it but the protos.
//
//	./generate && go build -o bin/client .
//	bin/client --address 127.0.0.1:50051 --model tiny-glm
//
// It lists the models, generates once, streams a chat, and shows what a refused request looks
// like. The last line is the same in JSON, for scripts.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	autoglm "example.com/autoglm-client/gen/autoglm/v1"
)

const requestID = "x-request-id"

type usage struct {
	PromptTokens     uint32 `json:"prompt_tokens"`
	CompletionTokens uint32 `json:"completion_tokens"`
}

type outcome struct {
	Text          string `json:"text"`
	Chunks        int    `json:"chunks,omitempty"`
	FinishReason  string `json:"finish_reason"`
	RequestIDSent string `json:"request_id_sent"`
	RequestID     string `json:"request_id"`
	Usage         usage  `json:"usage"`
}

type refusal struct {
	Code    uint32 `json:"code"`
	Message string `json:"message"`
	Reason  string `json:"reason"`
	Field   string `json:"field"`
}

type result struct {
	Client   string   `json:"client"`
	Models   []string `json:"models"`
	Generate outcome  `json:"generate"`
	Chat     outcome  `json:"chat"`
	Error    refusal  `json:"error"`
}

// caller holds what every call needs.
type caller struct {
	inference autoglm.InferenceClient
	model     string
	question  string
	timeout   time.Duration
}

// start gives a call its deadline and its request id.
func (c caller) start(ctx context.Context) (context.Context, context.CancelFunc, string) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	id := rand.Text()
	return metadata.AppendToOutgoingContext(ctx, requestID, id), cancel, id
}

func (c caller) listModels(ctx context.Context) ([]string, error) {
	ctx, cancel, _ := c.start(ctx)
	defer cancel()
	response, err := c.inference.ListModels(ctx, &autoglm.ListModelsRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, model := range response.GetModels() {
		names = append(names, model.GetName())
	}
	fmt.Println("models:", strings.Join(names, ", "))
	return names, nil
}

func (c caller) generate(ctx context.Context) (outcome, error) {
	ctx, cancel, sent := c.start(ctx)
	defer cancel()
	var header metadata.MD
	response, err := c.inference.Generate(ctx, c.request(greedy()), grpc.Header(&header))
	if err != nil {
		return outcome{}, err
	}
	completion := response.GetCompletions()[0]
	reason := completion.GetFinishReason().String()
	fmt.Printf("generate: %q (%s)\n", completion.GetText(), reason)
	return outcome{
		Text:          completion.GetText(),
		FinishReason:  reason,
		RequestIDSent: sent,
		RequestID:     returnedID(header),
		Usage:         counted(response.GetUsage()),
	}, nil
}

func (c caller) chat(ctx context.Context) (outcome, error) {
	ctx, cancel, sent := c.start(ctx)
	defer cancel()
	stream, err := c.inference.ChatStream(ctx, &autoglm.ChatRequest{
		Model:          c.model,
		Messages:       []*autoglm.ChatMessage{{Role: "user", Content: c.question}},
		SamplingParams: greedy(),
	})
	if err != nil {
		return outcome{}, err
	}
	got := outcome{RequestIDSent: sent}
	fmt.Print("chat: ")
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return outcome{}, err
		}
		fmt.Print(chunk.GetDelta().GetContent())
		got.add(chunk)
	}
	fmt.Printf(" (%s, %d tokens)\n", got.FinishReason, got.Usage.CompletionTokens)
	header, err := stream.Header()
	got.RequestID = returnedID(header)
	return got, err
}

// add appends a chunk to the completion so far.
func (o *outcome) add(chunk *autoglm.ChatChunk) {
	o.Text += chunk.GetDelta().GetContent()
	o.Chunks++
	if reason := chunk.GetFinishReason(); reason != autoglm.FinishReason_FINISH_REASON_UNSPECIFIED {
		o.FinishReason = reason.String()
	}
	if chunk.GetUsage() != nil {
		o.Usage = counted(chunk.GetUsage())
	}
}

// refused sends a top_p that cannot be, and reads what the server says about it.
func (c caller) refused(ctx context.Context) (refusal, error) {
	ctx, cancel, _ := c.start(ctx)
	defer cancel()
	_, err := c.inference.Generate(ctx, c.request(&autoglm.SamplingParams{TopP: proto.Float32(2)}))
	if err == nil {
		return refusal{}, errors.New("the server took a top_p of 2")
	}
	return explain(err), nil
}

// explain gives the error as a person and a program want it: the code, the reason, the wrong field.
func explain(err error) refusal {
	said := status.Convert(err)
	found := refusal{Code: uint32(said.Code()), Message: said.Message()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found.Reason = detail.GetReason()
		case *errdetails.BadRequest:
			found.Field = detail.GetFieldViolations()[0].GetField()
		}
	}
	fmt.Printf("refused: %s %s: %s\n", said.Code(), found.Field, found.Message)
	return found
}

func (c caller) request(params *autoglm.SamplingParams) *autoglm.GenerateRequest {
	return &autoglm.GenerateRequest{
		Model:          c.model,
		Prompt:         &autoglm.GenerateRequest_Text{Text: c.question},
		SamplingParams: params,
	}
}

func greedy() *autoglm.SamplingParams {
	return &autoglm.SamplingParams{Temperature: proto.Float32(0), MaxTokens: proto.Uint32(128)}
}

// returnedID finds the id under which the server's logs and traces have the request.
func returnedID(header metadata.MD) string {
	id := strings.Join(header.Get(requestID), "")
	fmt.Println("request id:", id)
	return id
}

func counted(u *autoglm.Usage) usage {
	return usage{PromptTokens: u.GetPromptTokens(), CompletionTokens: u.GetCompletionTokens()}
}

func (c caller) all(ctx context.Context) (result, error) {
	got := result{Client: "go"}
	var err error
	if got.Models, err = c.listModels(ctx); err != nil {
		return got, err
	}
	if got.Generate, err = c.generate(ctx); err != nil {
		return got, err
	}
	if got.Chat, err = c.chat(ctx); err != nil {
		return got, err
	}
	got.Error, err = c.refused(ctx)
	return got, err
}

func run() error {
	address := flag.String("address", "127.0.0.1:50051", "`HOST:PORT` of a gateway or a pod")
	model := flag.String("model", "tiny-glm", "the model to use")
	question := flag.String("question", "What is Open-AutoGLM?", "the prompt")
	seconds := flag.Float64("timeout", 30, "`seconds` for each call")
	flag.Parse()

	connection, err := grpc.NewClient(
		*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	asker := caller{
		inference: autoglm.NewInferenceClient(connection),
		model:     *model,
		question:  *question,
		timeout:   time.Duration(*seconds * float64(time.Second)),
	}
	got, err := asker.all(context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
