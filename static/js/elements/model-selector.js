// <model-selector> is the dialog in which a model is chosen: arrows move, Enter or a click takes, typing filters, the
// right arrow unfolds a row's details, Alt+S stars it. The chosen <model-option> sends `model-chosen`, which bubbles;
// then the dialog is asked to close. It begins at the model that is in use, if the list shows it. A star pressed while
// rows are on their way is put on those too, whichever of the two answers comes first.
customElements.define("model-selector", class extends HTMLElement {
  connectedCallback() {
    this.input = this.querySelector("input[type=search]")
    this.asked = this.input.value
    this.stars = new Map()
    for (const type of ["keydown", "click", "submit", "htmx:load", "htmx:afterSwap", "htmx:beforeRequest"]) this.addEventListener(type, this)
    this.mark(this.querySelector("model-option[aria-current]") ?? this.best)
    requestAnimationFrame(() => this.marked?.scrollIntoView({ block: "nearest" }))
  }

  get best() { return this.querySelector("model-option[data-best]") ?? this.options[0] }

  get options() { return [...this.querySelectorAll("model-option")] }

  handleEvent(event) {
    if (event.type === "keydown") this.move(event)
    else if (event.type === "click") this.clicked(event)
    else if (event.type === "submit") event.preventDefault()
    else if (event.type === "htmx:load") event.target === this && this.catchUp()
    else if (event.type === "htmx:beforeRequest") this.asks(event.detail)
    else if (event.detail.target?.id === "model-rows") this.refreshed()
  }

  // Whoever types as soon as the dialog is there may be faster than htmx, which then does not hear it.
  catchUp() {
    if (this.asked !== this.input.value) this.input.dispatchEvent(new Event("search"))
  }

  // Rows asked for now know the stars that were answered before; one on its way may be answered before them or after.
  asks({ target, elt, xhr }) {
    if (target?.id === "model-rows") {
      this.asked = this.input.value
      this.stars.clear()
    } else if (elt.matches(".star")) {
      xhr.addEventListener("load", () => {
        const said = xhr.responseText.match(/ aria-pressed="(true|false)"/)
        if (said) this.stars.set(elt.getAttribute("hx-post"), said[1])
        this.showStars()
      })
    }
  }

  showStars() {
    for (const star of this.querySelectorAll(".star")) {
      const pressed = this.stars.get(star.getAttribute("hx-post"))
      if (!pressed || star.getAttribute("aria-pressed") === pressed) continue
      star.setAttribute("aria-pressed", pressed)
      star.firstElementChild.textContent = pressed === "true" ? "★" : "☆"
    }
  }

  refreshed() {
    this.showStars()
    this.mark(this.best)
    this.querySelector(".selector__scroll").scrollTop = 0
    if (this.waits && this.asked === this.input.value) this.choose(this.marked)
    this.waits = false
  }

  move(event) {
    if (event.isComposing || event.target !== this.input) return
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key]
    const details = this.marked && this.detailsOf(this.marked)
    if (step) {
      const options = this.options
      const at = options.indexOf(this.marked) + step
      this.mark(options[Math.max(0, Math.min(options.length - 1, at))])
      this.marked?.scrollIntoView({ block: "nearest" })
    } else if (event.key === "Enter") {
      // Enter right after typing means the rows that are still on their way.
      if (this.asked === this.input.value && !this.querySelector("form .htmx-request")) this.choose(this.marked)
      else {
        this.waits = true
        this.input.dispatchEvent(new Event("search"))
      }
    } else if (event.key === "ArrowRight" && !details && this.marked && this.input.selectionStart === this.input.value.length) this.unfold(this.marked)
    else if (event.key === "ArrowLeft" && details) this.unfold(this.marked)
    else if (event.altKey && event.code === "KeyS") this.marked?.querySelector(".star")?.click()
    else return
    event.preventDefault()
  }

  mark(option) {
    this.marked?.setAttribute("aria-selected", "false")
    this.marked = option
    option?.setAttribute("aria-selected", "true")
    if (option) this.input.setAttribute("aria-activedescendant", option.id)
    else this.input.removeAttribute("aria-activedescendant")
  }

  clicked(event) {
    const option = event.target.closest("model-option")
    if (!option || event.target.closest(".star, a")) return
    if (event.target.closest("[data-unfold]")) {
      this.mark(option)
      this.unfold(option)
    } else this.choose(event.target.closest("[data-account], [data-alias]"))
  }

  // The details of a row stand right after it; those of an option inside them are the ones it stands in.
  detailsOf(option) {
    return option.closest(".details") ?? (option.nextElementSibling?.matches(".details") ? option.nextElementSibling : null)
  }

  async unfold(option) {
    const details = this.detailsOf(option)
    if (details) {
      const row = details.previousElementSibling
      details.remove()
      this.mark(row)
      row.querySelector("[data-unfold][aria-expanded]")?.setAttribute("aria-expanded", "false")
    } else if (option.dataset.details && !option.unfolding) {
      option.unfolding = true
      await window.htmx.ajax("GET", option.dataset.details, { target: option, swap: "afterend" })
      option.unfolding = false
      option.querySelector("[data-unfold][aria-expanded]")?.setAttribute("aria-expanded", "true")
      this.detailsOf(option)?.scrollIntoView({ block: "nearest" })
    }
  }

  choose(chosen) {
    if (!chosen) return
    const { alias, model, modelId, account, accountLabel, name, context, price, priceKind, priceInput, priceOutput } = chosen.dataset
    const prices = { text: price, kind: priceKind, input: priceInput, output: priceOutput }
    chosen.dispatchEvent(new CustomEvent("model-chosen", { bubbles: true, detail: { alias, model, modelId, account, accountLabel, name, context, prices } }))
    document.body.dispatchEvent(new CustomEvent("dialog-close"))
  }
})
