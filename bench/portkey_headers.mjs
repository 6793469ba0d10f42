// Portkey 1.15 on Node 20.20 answers every stream with 500: it adds headers to the upstream's own Response, whose headers
// this Node no longer lets anybody change. Streams therefore get a copy of their headers; plain answers are untouched.
const ask = globalThis.fetch
globalThis.fetch = async (...what) => {
  const answer = await ask(...what)
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) return answer
  const { status, statusText } = answer
  const headers = new Headers(answer.headers)
  const copy = new Response(answer.body, { status, statusText, headers })
  return new Proxy(copy, { get: (of, name) => (name === "headers" ? headers : typeof of[name] === "function" ? of[name].bind(of) : of[name]) })
}
