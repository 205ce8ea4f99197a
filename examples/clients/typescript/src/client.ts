// Calls Open-AutoGLM from a TypeScript service that has nothing of it but the protos.
//
//   npm install && npm run generate && npm run build
//   npm start -- --address 127.0.0.1:50051 --model tiny-glm
//
// Lists the models, generates once, streams a chat, and shows what a refused request looks like.
// The last line is the same in JSON, for scripts.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type CallOptions,
  type Client,
  Code,
  ConnectError,
  createClient,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import {
  FinishReason,
  FinishReasonSchema,
  type SamplingParamsSchema,
  type Usage,
} from "./gen/autoglm/v1/generate_pb.js";
import { Inference } from "./gen/autoglm/v1/inference_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const REQUEST_ID = "x-request-id";
const GREEDY: MessageInitShape<typeof SamplingParamsSchema> = { temperature: 0, maxTokens: 128 };

interface Options {
  inference: Client<typeof Inference>;
  model: string;
  question: string;
  timeoutMs: number;
}

interface Completion {
  text: string;
  chunks?: number;
  finish_reason: string;
  request_id_sent: string;
  request_id: string;
  usage: { prompt_tokens: number; completion_tokens: number };
}

interface Refusal {
  code: number;
  message: string;
  reason: string;
  field: string;
}

/** A request's id: ours, and the one that came back, under which the server's logs have it. */
class RequestId {
  readonly sent: string = randomUUID();
  returned = "";

  options(timeoutMs: number): CallOptions {
    return {
      timeoutMs,
      headers: { [REQUEST_ID]: this.sent },
      onHeader: (headers) => {
        this.returned = headers.get(REQUEST_ID) ?? "";
      },
    };
  }
}

async function listModels({ inference, timeoutMs }: Options): Promise<string[]> {
  const { models } = await inference.listModels({}, { timeoutMs });
  const names = models.map((model) => model.name);
  console.log("models:", names.join(", "));
  return names;
}

async function generate(options: Options): Promise<Completion> {
  const id = new RequestId();
  const response = await options.inference.generate(
    {
      model: options.model,
      prompt: { case: "text", value: options.question },
      samplingParams: GREEDY,
    },
    id.options(options.timeoutMs),
  );
  const completion = response.completions[0];
  if (completion === undefined) {
    throw new Error("the response has no completion");
  }
  const reason = nameOf(completion.finishReason);
  console.log(`generate: ${JSON.stringify(completion.text)} (${reason})`);
  return {
    text: completion.text,
    finish_reason: reason,
    ...ids(id),
    usage: counted(response.usage),
  };
}

async function chat(options: Options): Promise<Completion> {
  const id = new RequestId();
  const stream = options.inference.chatStream(
    {
      model: options.model,
      messages: [{ role: "user", content: options.question }],
      samplingParams: GREEDY,
    },
    id.options(options.timeoutMs),
  );
  let text = "";
  let chunks = 0;
  let reason = FinishReason.UNSPECIFIED;
  let usage: Usage | undefined;
  process.stdout.write("chat: ");
  for await (const chunk of stream) {
    const piece = chunk.delta?.content ?? "";
    process.stdout.write(piece);
    text += piece;
    chunks += 1;
    reason = chunk.finishReason || reason;
    usage = chunk.usage ?? usage;
  }
  console.log(` (${nameOf(reason)}, ${usage?.completionTokens ?? 0} tokens)`);
  return { text, chunks, finish_reason: nameOf(reason), ...ids(id), usage: counted(usage) };
}

/** Sends a top_p that cannot be, and reads what the server says about it. */
async function refused({ inference, model, question, timeoutMs }: Options): Promise<Refusal> {
  const wrong = { topP: 2 };
  try {
    await inference.generate(
      { model, prompt: { case: "text", value: question }, samplingParams: wrong },
      { timeoutMs },
    );
  } catch (error) {
    return explain(ConnectError.from(error));
  }
  throw new Error("the server took a top_p of 2");
}

/** The error as a person and a program want it: the code, the reason, the wrong field. */
function explain(error: ConnectError): Refusal {
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? "";
  const field = error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field ?? "";
  console.log(`refused: ${Code[error.code]} ${field}: ${error.rawMessage}`);
  return { code: error.code, message: error.rawMessage, reason, field };
}

function ids(id: RequestId): { request_id_sent: string; request_id: string } {
  console.log("request id:", id.returned);
  return { request_id_sent: id.sent, request_id: id.returned };
}

function nameOf(reason: FinishReason): string {
  return FinishReasonSchema.value[reason]?.name ?? String(reason);
}

function counted(usage: Usage | undefined): Completion["usage"] {
  return {
    prompt_tokens: usage?.promptTokens ?? 0,
    completion_tokens: usage?.completionTokens ?? 0,
  };
}

function parse(): Options {
  const { values } = parseArgs({
    options: {
      address: { type: "string", default: "127.0.0.1:50051" },
      model: { type: "string", default: "tiny-glm" },
      question: { type: "string", default: "What is Open-AutoGLM?" },
      timeout: { type: "string", default: "30" },
    },
  });
  const transport = createGrpcTransport({ baseUrl: `http://${values.address}` });
  return {
    inference: createClient(Inference, transport),
    model: values.model,
    question: values.question,
    timeoutMs: Number(values.timeout) * 1000,
  };
}

try {
  const options = parse();
  const result = {
    client: "typescript",
    models: await listModels(options),
    generate: await generate(options),
    chat: await chat(options),
    error: await refused(options),
  };
  console.log(JSON.stringify(result));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
