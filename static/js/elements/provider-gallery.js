// <provider-gallery> holds buttons (.choice) and, in a <details>, more of them with a search field. Typing narrows the
// list, Enter takes its first, the arrow keys move through whatever is shown. Without it, all of it is plain buttons.
customElements.define("provider-gallery", class extends HTMLElement {
  connectedCallback() {
    this.addEventListener("input", this)
    this.addEventListener("keydown", this)
    this.addEventListener("toggle", this, true) // does not bubble
  }

  get search() { return this.querySelector("input[type=search]") }

  get shown() {
    const open = this.querySelector("details")?.open
    return [...this.querySelectorAll(".choice")].filter(choice => !choice.hidden && (open || !choice.closest("details")))
  }

  handleEvent(event) {
    if (event.type === "toggle") this.unfolded(event.target)
    else if (event.type === "input") this.narrow()
    else if (event.target.matches("input, .choice")) this.move(event)
  }

  unfolded(details) {
    // Only a click unfolds with the focus in here; a dialog drawn unfolded leaves it where the form wants it.
    if (details.open && details.contains(document.activeElement)) this.search.focus()
    if (details.open) this.querySelector(".choice[aria-current]")?.scrollIntoView({ block: "nearest" })
  }

  narrow() {
    const words = this.search.value.toLowerCase().split(/\s+/)
    const all = [...this.querySelectorAll("details .choice")]
    for (const choice of all) {
      const text = choice.textContent.toLowerCase().replace(/\s+/g, " ")
      choice.hidden = !words.every(word => text.includes(word))
    }
    const left = all.filter(choice => !choice.hidden).length
    this.querySelector("details [role=status]").textContent =
      left ? `${left} of ${all.length}` : "None by that name. Try Custom endpoint."
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    const found = this.shown.filter(choice => choice.closest("details"))
    if (step) {
      const stops = this.shown
      const at = event.target === this.search ? stops.indexOf(found[0]) - (step > 0) : stops.indexOf(event.target)
      stops[Math.min(Math.max(at + step, 0), stops.length - 1)]?.focus()
    } else if (event.key === "Enter" && event.target === this.search) found[0]?.click()
    else if (event.key === "Escape" && event.target === this.search && this.search.value) {
      this.search.value = ""
      this.narrow()
    } else return
    event.preventDefault()
    event.stopPropagation()
  }
})
