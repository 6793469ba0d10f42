// Reads streams with the official `openai` package for JavaScript and prints what it collected, one JSON per line.
//
//   npm install openai            # in a folder of its own, outside the repository
//   OPENAI_JS=<that folder> make test ARGS="-k javascript"
//
// Environment: OPENAI_JS, BASE_URL, TOKEN. Arguments: names of models.
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"
import { join } from "node:path"

const found = createRequire(join(process.env.OPENAI_JS, "package.json")).resolve("openai")
const { OpenAI, APIError } = await import(pathToFileURL(found))
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.TOKEN, maxRetries: 0 })

const reasoningOf = (delta) => {
  for (const name of ["reasoning", "reasoning_content", "thinking"]) {
    if (typeof delta[name] === "string" && delta[name]) return delta[name]
  }
  const rows = delta.reasoning_details ?? []
  return (Array.isArray(rows) ? rows : [rows]).map((row) => row.text || row.summary || row.thinking || "").join("")
}

for (const model of process.argv.slice(2)) {
  const answer = { model, text: "", reasoning: "", tools: {}, usage: null, finish: null, annotations: 0, error: null }
  const identities = new Set()
  try {
    const stream = await client.chat.completions.create({
      model, messages: [{ role: "user", content: "hi" }], stream: true, stream_options: { include_usage: true },
    })
    for await (const event of stream) {
      identities.add(`${event.id} ${event.model} ${event.created}`)
      answer.usage = event.usage ?? answer.usage
      for (const choice of event.choices) {
        answer.text += choice.delta.content ?? ""
        answer.reasoning += reasoningOf(choice.delta)
        answer.annotations += choice.delta.annotations?.length ?? 0
        answer.finish = choice.finish_reason ?? answer.finish
        for (const call of choice.delta.tool_calls ?? []) {
          const known = (answer.tools[call.index] ??= ["", "", ""])
          known[0] ||= call.id ?? ""
          known[1] ||= call.function?.name ?? ""
          known[2] += call.function?.arguments ?? ""
        }
      }
    }
  } catch (error) {
    answer.error = error instanceof APIError ? error.code : `${error}`
  }
  answer.identities = identities.size
  console.log(JSON.stringify(answer))
}
