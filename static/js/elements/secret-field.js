// <secret-field> wraps a password input and a button that shows and hides what is typed. When its form is sent, it
// hides it again, so that no key stays readable on the screen.
customElements.define("secret-field", class extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", this)
    this.form = this.closest("form")
    this.form?.addEventListener("submit", this)
  }

  disconnectedCallback() {
    this.form?.removeEventListener("submit", this)
  }

  handleEvent(event) {
    if (event.type === "submit") this.show(false)
    else if (event.target.closest("button")) {
      this.show(this.querySelector("input").type === "password")
      this.querySelector("input").focus()
    }
  }

  show(visible) {
    const button = this.querySelector("button")
    this.querySelector("input").type = visible ? "text" : "password"
    button.textContent = visible ? "Hide" : "Show"
    button.setAttribute("aria-pressed", visible)
  }
})
