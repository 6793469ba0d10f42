// <try-call> writes the call for the chosen model and token in three languages, and can run it from the page.
const PLACEHOLDER = "$SWITCHBOARD_TOKEN"

const WRITERS = {
  curl: (base, model, token) => `curl ${base}/chat/completions \\
  -H "Authorization: Bearer ${token}" \\
  -H "Content-Type: application/json" \\
  -d '${JSON.stringify({ model, messages: [{ role: "user", content: "Say hello" }] }).replaceAll("'", "'\\''")}'`,

  python: (base, model, token) => `from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(base)}, api_key=${JSON.stringify(token)})
answer = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[{"role": "user", "content": "Say hello"}],
)
print(answer.choices[0].message.content)`,

  javascript: (base, model, token) => `import OpenAI from "openai"

const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: ${JSON.stringify(token)} })
const answer = await client.chat.completions.create({
  model: ${JSON.stringify(model)},
  messages: [{ role: "user", content: "Say hello" }],
})
console.log(answer.choices[0].message.content)`,
}

customElements.define("try-call", class extends HTMLElement {
  connectedCallback() {
    this.language = "curl"
    this.addEventListener("input", () => this.write())
    this.addEventListener("click", (event) => {
      const chosen = event.target.closest("[data-language]")
      if (chosen) this.choose(chosen)
      else if (event.target.closest("[data-run]")) this.run(event.target.closest("[data-run]"))
    })
    this.write()
  }

  get model() { return this.querySelector("[name=model]").value.trim() }
  get token() { return this.querySelector("[name=token]").value.trim() }

  choose(tab) {
    this.language = tab.dataset.language
    for (const one of this.querySelectorAll("[data-language]")) {
      one.setAttribute("aria-selected", one === tab)
      one.setAttribute("aria-pressed", one === tab)
    }
    this.write()
  }

  write() {
    const text = WRITERS[this.language](this.dataset.baseUrl, this.model, this.token || PLACEHOLDER)
    this.querySelector("pre code").textContent = text
    this.querySelector("copy-button").dataset.text = text
  }

  async run(button) {
    if (!this.token) return this.say("Paste a token first, or make one above.", true)
    button.disabled = true
    this.say("Waiting for the answer…")
    try {
      const response = await fetch("/v1/chat/completions", {
        method: "POST",
        credentials: "omit",
        headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json" },
        body: JSON.stringify({ model: this.model, messages: [{ role: "user", content: "Say hello" }] }),
      })
      const body = await response.json()
      if (response.ok) this.say(body.choices[0].message.content ?? "The answer has no text.")
      else this.say(`${response.status}: ${body.error.message}`, true)
    } catch {
      this.say("The server could not be reached.", true)
    } finally {
      button.disabled = false
    }
  }

  say(text, isBad = false) {
    const answer = this.querySelector(".try__answer")
    answer.hidden = false
    answer.classList.toggle("try__answer--bad", isBad)
    answer.textContent = text
  }
})
