// <copy-button> copies its data-text, the text of its own [data-source], or else of the code block it stands in.
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
    if (this.dataset.text !== undefined) return this.dataset.text
    const source = this.querySelector("[data-source]")
    return source ? source.value : this.closest("figure")?.querySelector("pre")?.textContent ?? ""
  }

  async handleEvent(event) {
    const button = event.target.closest("button")
    if (!button) return
    if (!(await this.copy(this.text))) return this.say(button, "Not allowed")
    this.say(button, "Copied")
    this.dispatchEvent(new CustomEvent("copied", { bubbles: true }))
  }

  // Over plain http there is no clipboard API: select the text in a field out of sight, and ask the old way.
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text)
      return true
    } catch {
      const field = document.createElement("textarea")
      const active = document.activeElement
      field.value = text
      field.readOnly = true
      field.className = "for-screen-reader"
      this.append(field)
      field.select()
      const copied = document.execCommand("copy")
      field.remove()
      active?.focus({ preventScroll: true })
      return copied
    }
  }

  say(button, word) {
    clearTimeout(this.timer)
    button.textContent = word
    this.timer = setTimeout(() => (button.textContent = "Copy"), 2000)
  }
})
