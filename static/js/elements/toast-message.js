// <toast-message> can be dismissed, and leaves by itself unless it reports an error or is being read.
customElements.define("toast-message", class extends HTMLElement {
  connectedCallback() {
    this.querySelector("button")?.addEventListener("click", () => this.remove())
    if (!this.classList.contains("message--error")) this.leaveLater()
  }

  leaveLater() {
    this.timer = setTimeout(() => (this.matches(":hover, :focus-within") ? this.leaveLater() : this.remove()), 6000)
  }

  disconnectedCallback() {
    clearTimeout(this.timer)
  }
})
