// <secret-field> wraps a password input with a button that shows and hides what is typed, and one ([data-paste]) that
// takes the clipboard where the browser lets pages ask for it. When its form is sent, it hides what was typed again, so
// that no key stays readable on the screen.
customElements.define("secret-field", class extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", this)
    this.form = this.closest("form")
    this.form?.addEventListener("submit", this)
    this.querySelector("[data-paste]").hidden = !navigator.clipboard?.readText
  }

  disconnectedCallback() {
    this.form?.removeEventListener("submit", this)
  }

  get input() {
    return this.querySelector("input")
  }

  handleEvent(event) {
    if (event.type === "submit") this.show(false)
    else if (event.target.closest("[data-paste]")) this.paste()
    else if (event.target.closest("button")) {
      this.show(this.input.type === "password")
      this.input.focus()
    }
  }

  async paste() {
    const text = await navigator.clipboard.readText().catch(() => "") // not allowed: typing and Ctrl-V still are
    this.input.focus()
    if (!text.trim()) return
    this.input.value = text.trim()
    this.input.dispatchEvent(new Event("input", { bubbles: true }))
  }

  show(visible) {
    const button = this.querySelector("[aria-pressed]")
    this.input.type = visible ? "text" : "password"
    button.textContent = visible ? "Hide" : "Show"
    button.setAttribute("aria-pressed", visible)
  }
})
