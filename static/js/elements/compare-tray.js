// <compare-tray> keeps the models ticked for comparing while the table beside it is searched, sorted and paged. The
// boxes are those of the form inside it; the server takes at most `data-most`, and so does this.
customElements.define("compare-tray", class extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form")
    this.chosen = new Map()
    this.addEventListener("click", this)
    document.addEventListener("change", this)
    document.addEventListener("htmx:afterSwap", this)
    this.form.addEventListener("submit", this)
    for (const box of this.boxes) if (box.checked) this.chosen.set(box.value, box.dataset.name) // kept by the browser
    this.draw()
  }

  disconnectedCallback() {
    document.removeEventListener("change", this)
    document.removeEventListener("htmx:afterSwap", this)
  }

  get boxes() { return document.querySelectorAll('input[type=checkbox][form="compare"]') }

  handleEvent(event) {
    if (event.type === "change") event.target.matches('[form="compare"]') && this.tick(event.target)
    else if (event.type === "submit") this.go(event)
    else if (event.type === "htmx:afterSwap") this.draw()
    else if (event.target.closest("[data-clear]")) this.drop(...this.chosen.keys())
    else if (event.target.closest("[data-drop]")) this.drop(event.target.closest("[data-drop]").dataset.drop)
  }

  tick(box) {
    const isFull = this.chosen.size >= Number(this.dataset.most)
    if (!box.checked) this.chosen.delete(box.value)
    else if (!isFull) this.chosen.set(box.value, box.dataset.name)
    this.draw(box.checked && isFull ? `${this.dataset.most} is the most. Take one out first.` : "")
  }

  drop(...keys) {
    for (const key of keys) this.chosen.delete(key)
    this.draw()
  }

  draw(words = "") {
    for (const box of this.boxes) box.checked = this.chosen.has(box.value)
    this.form.hidden = !this.chosen.size
    this.querySelector("ul").replaceChildren(...[...this.chosen].map(([key, name]) => {
      const item = document.createElement("li")
      const label = document.createElement("span")
      const button = document.createElement("button")
      item.className = "tray__one"
      label.textContent = name
      label.dir = "auto"
      button.type = "button"
      button.dataset.drop = key
      button.ariaLabel = `Take out ${name}`
      button.textContent = "✕"
      item.append(label, button)
      return item
    }))
    this.querySelector("[data-words]").textContent = words || (this.chosen.size < 2 ? "Tick another to compare." : "")
    this.form.querySelector("[type=submit]").disabled = this.chosen.size < 2
  }

  // The models of other pages of the table have no box here, so the address is made from what was chosen.
  go(event) {
    event.preventDefault()
    location.assign(`${this.form.action}?${new URLSearchParams([...this.chosen.keys()].map((key) => ["m", key]))}`)
  }
})
