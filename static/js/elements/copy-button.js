// <copy-button> copies the text of its own [data-source], or else of the code block it stands in.
customElements.define("copy-button", class extends HTMLElement {
  connectedCallback() {
    if (!this.querySelector("button")) {
      const button = document.createElement("button")
      button.type = "button"
      button.textContent = "Copy"
      this.append(button)
    }
    this.addEventListener("click", this)
  }

  get text() {
    const source = this.querySelector("[data-source]")
    return source ? source.value : this.closest("figure")?.querySelector("pre")?.textContent ?? ""
  }

  async handleEvent(event) {
    const button = event.target.closest("button")
    if (!button) return
    try {
      await navigator.clipboard.writeText(this.text)
    } catch {
      return this.say(button, "Not allowed") // no clipboard over plain http, or the browser refused
    }
    this.say(button, "Copied")
    this.dispatchEvent(new CustomEvent("copied", { bubbles: true }))
  }

  say(button, word) {
    clearTimeout(this.timer)
    button.textContent = word
    this.timer = setTimeout(() => (button.textContent = "Copy"), 2000)
  }
})
