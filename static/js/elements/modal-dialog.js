// <modal-dialog> holds the page's one <dialog>: it opens when htmx has filled it, or as a skeleton when that takes
// longer than 300 ms. It closes on a click on [data-close] or beside it, on Escape (the browser does that), and on the
// server's `dialog-close` event.
const PATIENCE = 300
customElements.define("modal-dialog", class extends HTMLElement {
  connectedCallback() {
    this.dialog = this.querySelector("dialog")
    this.dialog.addEventListener("htmx:afterSwap", this)
    this.dialog.addEventListener("click", this)
    this.dialog.addEventListener("close", this)
    for (const type of ["dialog-close", "htmx:beforeRequest", "htmx:afterRequest"]) document.body.addEventListener(type, this)
  }

  disconnectedCallback() {
    for (const type of ["dialog-close", "htmx:beforeRequest", "htmx:afterRequest"]) document.body.removeEventListener(type, this)
  }

  handleEvent(event) {
    if (event.type === "htmx:afterSwap") this.filled(event)
    else if (event.type === "htmx:beforeRequest") this.asked(event)
    else if (event.type === "htmx:afterRequest") this.answered(event)
    else if (event.type === "dialog-close") this.dialog.close()
    else if (event.type === "close" && event.target === this.dialog) this.closed()
    else if (event.type === "click" && (event.target === this.dialog || event.target.closest("[data-close]"))) this.dialog.close()
  }

  asked({ detail }) {
    if (detail.target !== this.dialog || this.dialog.open) return
    this.asker = detail.elt
    this.timer = setTimeout(() => {
      this.dialog.replaceChildren(this.querySelector("template").content.cloneNode(true))
      this.open("Loading…")
    }, PATIENCE)
  }

  answered({ detail }) {
    if (detail.target !== this.dialog || detail.elt !== this.asker) return
    clearTimeout(this.timer)
    this.asker = null
    if (!detail.successful && this.dialog.querySelector(".skeleton")) this.dialog.close()
  }

  filled(event) {
    if (event.target !== this.dialog || !this.dialog.firstElementChild) return
    clearTimeout(this.timer)
    this.asker = null
    const heading = this.dialog.querySelector("h1, h2")
    this.open(heading ? heading.textContent.trim() : "Dialog")
  }

  open(label) {
    this.dialog.setAttribute("aria-label", label)
    if (!this.dialog.open) this.dialog.showModal()
  }

  closed() {
    this.dialog.replaceChildren()
    if (this.asker) window.htmx.trigger(this.asker, "htmx:abort") // closed before it came: it is not wanted any more
    this.asker = null
  }
})
