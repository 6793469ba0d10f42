// <sealed-form data-url data-purpose> stands in a form. When that is sent, the fields marked [data-sealed] go into one
// text that only the server's vault can open (providers/sealing.py), together with those that say where a key goes:
// the fields marked so have no name, so what was typed is in no request. The hidden input it holds carries the text.
// Where the answer is the same form again (data-keeps), what was typed stands in its new fields: it never left the page.
const CONTEXT = new TextEncoder().encode("switchboard sealed form v1")
const CURVE = { name: "ECDH", namedCurve: "P-256" }
let typed = null // what the form that was sent last has in its marked fields, until its answer is drawn

customElements.define("sealed-form", class extends HTMLElement {
  connectedCallback() {
    this.form = this.closest("form")
    this.result = this.querySelector("input")
    this.notice = this.querySelector("[role=alert]")
    this.canSeal = window.isSecureContext && Boolean(window.crypto?.subtle)
    this.form.addEventListener("submit", this, { capture: true })
    if (this.canSeal) this.secrets.forEach((field) => field.removeAttribute("name"))
    else if (this.secrets.length) this.say(this.dataset.warning)
    if (typed?.purpose === this.dataset.purpose && "keeps" in this.dataset) {
      for (const field of this.secrets) field.value = typed.fields[field.dataset.sealed] ?? ""
    }
    typed = null
  }

  disconnectedCallback() {
    typed = null
    this.form.removeEventListener("submit", this, { capture: true })
  }

  get secrets() {
    return [...this.form.querySelectorAll("[data-sealed]")]
  }

  handleEvent(event) {
    if (this.isSealed) {
      this.isSealed = false // our own second submit: on to htmx
      return
    }
    typed = { purpose: this.dataset.purpose, fields: this.marked() }
    this.result.value = ""
    if (!this.secrets.some((field) => field.value.trim())) return
    if (!this.canSeal && this.secrets.every((field) => field.name)) return // the operator allows it
    event.preventDefault()
    event.stopImmediatePropagation()
    if (this.canSeal && !this.isBusy) this.send(event.submitter)
  }

  async send(submitter) {
    this.isBusy = true
    this.say("")
    try {
      this.result.value = await this.seal()
    } catch {
      this.say("The key could not be encrypted, so nothing was sent. Reload the page and try again.")
      return
    } finally {
      this.isBusy = false
    }
    if (!this.isConnected) return
    this.isSealed = true
    this.form.requestSubmit(submitter)
  }

  async seal() {
    const offer = await this.ask()
    const theirs = decode(offer.public_key)
    const pair = await crypto.subtle.generateKey(CURVE, false, ["deriveBits"])
    const ours = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey))
    const server = await crypto.subtle.importKey("raw", theirs, CURVE, false, [])
    const shared = await crypto.subtle.deriveBits({ name: "ECDH", public: server }, pair.privateKey, 256)
    const key = await crypto.subtle.deriveKey(
      { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: join(CONTEXT, ours, theirs) },
      await crypto.subtle.importKey("raw", shared, "HKDF", false, ["deriveKey"]),
      { name: "AES-GCM", length: 256 }, false, ["encrypt"],
    )
    const nonce = crypto.getRandomValues(new Uint8Array(12))
    const content = new TextEncoder().encode(JSON.stringify({ names: offer.names, fields: this.fields() }))
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData: CONTEXT }, key, content)
    return [offer.version, offer.key_id, encode(ours), encode(nonce), encode(new Uint8Array(sealed))].join(".")
  }

  // The secrets, and where they go: sealed too, so that nobody on the way can send a key elsewhere.
  fields() {
    const fields = this.marked()
    for (const name of ["provider", "base_url"]) {
      const field = this.form.elements.namedItem(name)
      if (field) fields[name] = field.value
    }
    return fields
  }

  marked() {
    return Object.fromEntries(this.secrets.map((field) => [field.dataset.sealed, field.value]))
  }

  async ask() {
    const response = await fetch(this.dataset.url, {
      method: "POST",
      headers: { "X-CSRFToken": this.form.elements.namedItem("csrfmiddlewaretoken").value },
      body: new URLSearchParams({ purpose: this.dataset.purpose }),
    })
    if (!response.ok) throw new Error(`${response.status}`)
    return response.json()
  }

  say(sentence) {
    this.notice.textContent = sentence
    this.notice.hidden = !sentence
  }
})

function encode(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")
}

function decode(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0))
}

function join(...parts) {
  return new Uint8Array(parts.flatMap((part) => [...part]))
}
