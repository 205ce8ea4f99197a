// What the SDKs of OpenAI and Anthropic make of errors. Prints JSON by SDK and case.
//
//   node errors.mjs URL CASE...    the case is key and prompt; one that is no number is requested
//                                  as a stream
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, ...cases] = process.argv.slice(2);

async function outcome(work) {
  try {
    return { class: "", seen: await work() };
  } catch (error) {
    return {
      class: error.constructor.name,
      text: String(error.message),
      status: error.status ?? null,
      requestId: error.requestID ?? error.headers?.get?.("x-request-id") ?? null,
    };
  }
}

async function drained(stream) {
  let count = 0;
  for await (const _ of await stream) count += 1;
  return count;
}

const seen = {};
for (const key of cases) {
  const stream = Number.isNaN(Number(key));
  const messages = [{ role: "user", content: key }];
  const openai = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: key === "501" ? 2 : 0 });
  const anthropic = new Anthropic({ apiKey: key, baseURL: url, maxRetries: key === "501" ? 2 : 0 });
  const works = {
    chat: async () => drainedIf(stream, openai.chat.completions.create({ model: "m", messages, stream })),
    responses: async () => drainedIf(stream, openai.responses.create({ model: "m", input: key, stream })),
    messages: async () =>
      drainedIf(stream, anthropic.messages.create({ model: "m", max_tokens: 9, messages, stream })),
  };
  if (stream) {
    works.messagesHelper = async () =>
      (await anthropic.messages.stream({ model: "m", max_tokens: 9, messages }).finalMessage()).id;
  }
  for (const [name, work] of Object.entries(works)) {
    (seen[name] ??= {})[key] = await outcome(work);
  }
}

async function drainedIf(stream, request) {
  const response = await request;
  return stream ? drained(response) : response.id;
}

console.log(JSON.stringify(seen));
