// <side-sheet> makes the sidebar a sheet on a phone: [data-side-open] opens it; the veil, Escape or a link closes it.
customElements.define("side-sheet", class extends HTMLElement {
  connectedCallback() {
    document.addEventListener("click", this)
    document.addEventListener("keydown", this)
  }

  disconnectedCallback() {
    document.removeEventListener("click", this)
    document.removeEventListener("keydown", this)
  }

  handleEvent(event) {
    if (event.type === "keydown") {
      if (event.key === "Escape") this.toggle(false)
    } else if (event.target.closest("[data-side-open]")) {
      this.toggle(true)
    } else if (event.target.closest(".side__veil, .side a")) {
      this.toggle(false)
    }
  }

  toggle(open) {
    const was = this.hasAttribute("open")
    this.toggleAttribute("open", open)
    if (open) this.querySelector(".side a")?.focus()
    else if (was) document.querySelector("[data-side-open]")?.focus()
  }
})
