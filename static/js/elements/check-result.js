// <check-result> stands in a form and shows what a check found. It is about what was checked: once the key, an extra
// header or the address is changed, it goes, and its form asks again.
customElements.define("check-result", class extends HTMLElement {
  connectedCallback() {
    this.form = this.closest("form")
    this.form.addEventListener("input", this)
    requestAnimationFrame(() => this.scrollIntoView({ block: "nearest" }))
  }

  disconnectedCallback() {
    this.form.removeEventListener("input", this)
  }

  handleEvent({ target }) {
    if (!target.matches("[data-sealed], [name=base_url]")) return
    this.form.querySelector("[name=accept_unverified]")?.remove()
    for (const text of this.form.querySelectorAll("[data-unchecked]")) text.textContent = text.dataset.unchecked
    this.remove()
  }
})
