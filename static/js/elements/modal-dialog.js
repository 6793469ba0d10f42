// <modal-dialog> holds the page's one <dialog>: it opens when htmx has filled it, and closes on a click on
// [data-close] or beside it, on Escape (the browser does that), and on the server's `dialog-close` event.
customElements.define("modal-dialog", class extends HTMLElement {
  connectedCallback() {
    this.dialog = this.querySelector("dialog")
    this.dialog.addEventListener("htmx:afterSwap", this)
    this.dialog.addEventListener("click", this)
    this.dialog.addEventListener("close", this)
    document.body.addEventListener("dialog-close", this)
  }

  disconnectedCallback() {
    document.body.removeEventListener("dialog-close", this)
  }

  handleEvent(event) {
    if (event.type === "htmx:afterSwap") this.open(event)
    else if (event.type === "dialog-close") this.dialog.close()
    else if (event.type === "close" && event.target === this.dialog) this.dialog.replaceChildren()
    else if (event.type === "click" && (event.target === this.dialog || event.target.closest("[data-close]"))) this.dialog.close()
  }

  open(event) {
    if (event.target !== this.dialog || this.dialog.open || !this.dialog.firstElementChild) return
    const heading = this.dialog.querySelector("h1, h2")
    this.dialog.setAttribute("aria-label", heading ? heading.textContent.trim() : "Dialog")
    this.dialog.showModal()
  }
})
