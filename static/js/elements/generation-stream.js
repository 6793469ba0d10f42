// <generation-stream data-url data-after> follows a reply that is being written. The server sends HTML: blocks that are
// finished are appended, the open one is replaced; the last event brings the whole finished message. When the
// connection breaks it opens again after the last number it has seen, waiting longer each time (at most 8 s).
customElements.define("generation-stream", class extends HTMLElement {
  connectedCallback() {
    this.seq = this.seq ?? Number(this.dataset.after)
    this.failures = 0
    document.addEventListener("keydown", this)
    this.open()
  }

  disconnectedCallback() {
    document.removeEventListener("keydown", this)
    clearTimeout(this.timer)
    this.source?.close()
  }

  open() {
    this.source = new EventSource(`${this.dataset.url}?after=${this.seq}`)
    for (const type of ["update", "reset", "end", "error"]) this.source.addEventListener(type, this)
  }

  handleEvent(event) {
    if (event.type === "keydown") this.stopOn(event)
    else if (event.type === "error") this.retry()
    else if (event.type === "end") this.end(JSON.parse(event.data))
    else this.update(JSON.parse(event.data), event.type === "reset")
  }

  stopOn(event) {
    if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open], side-sheet[open]")) return
    this.querySelector("[data-stop]")?.click()
  }

  retry() {
    this.source.close()
    this.timer = setTimeout(() => this.open(), Math.min(500 * 2 ** this.failures++, 8000) * (0.75 + Math.random() / 2))
  }

  update({ seq, closed, tail, reasoning, status }, whole) {
    this.seq = seq
    this.failures = 0
    const place = this.querySelector("[data-tail]")
    const thought = this.querySelector("[data-reasoning]")
    if (whole) {
      while (place.previousSibling) place.previousSibling.remove()
      thought.textContent = ""
    }
    if (closed) place.insertAdjacentHTML("beforebegin", closed)
    place.innerHTML = tail
    if (reasoning) thought.append(reasoning)
    this.querySelector("[data-think]").hidden = !thought.textContent
    if (status) this.querySelector("[data-status]").textContent = status
    this.tell("reply-grew")
  }

  end({ html }) {
    this.source.close()
    if (!html) return location.reload()
    const box = document.createElement("template")
    box.innerHTML = html
    const turn = box.content.querySelector("section")
    const parent = this.parentElement.parentElement
    const wasThinking = this.querySelector("[data-think]")?.open
    const focusInside = this.contains(document.activeElement)
    this.parentElement.replaceWith(turn)
    if (wasThinking) turn.querySelector(".think")?.setAttribute("open", "")
    if (focusInside) document.querySelector("#composer textarea")?.focus({ preventScroll: true })
    window.htmx?.process(turn)
    parent.dispatchEvent(new CustomEvent("reply-grew", { bubbles: true }))
    parent.dispatchEvent(new CustomEvent("conversations-changed", { bubbles: true }))
  }

  tell(name) {
    this.dispatchEvent(new CustomEvent(name, { bubbles: true }))
  }
})
