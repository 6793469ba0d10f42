// <model-selector> is the dialog in which a model is chosen: arrows move, Enter or a click takes, typing filters.
// The chosen <model-option> sends `model-chosen`, which bubbles; then the dialog is asked to close.
customElements.define("model-selector", class extends HTMLElement {
  connectedCallback() {
    this.input = this.querySelector("input[type=search]")
    this.asked = this.input.value
    for (const type of ["keydown", "click", "submit", "htmx:afterSwap", "htmx:beforeRequest"]) this.addEventListener(type, this)
    this.mark(this.options[0])
  }

  get options() { return [...this.querySelectorAll("model-option")] }

  handleEvent(event) {
    if (event.type === "keydown") this.move(event)
    else if (event.type === "click") this.choose(event.target.closest("model-option"))
    else if (event.type === "submit") event.preventDefault()
    else if (event.type === "htmx:beforeRequest") this.asked = this.input.value
    else this.refreshed()
  }

  refreshed() {
    this.mark(this.options[0])
    this.querySelector(".selector__scroll").scrollTop = 0
    if (this.waits && this.asked === this.input.value) this.choose(this.marked)
    this.waits = false
  }

  move(event) {
    if (event.isComposing || event.target !== this.input) return
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key]
    if (step) {
      const options = this.options
      const at = options.indexOf(this.marked) + step
      this.mark(options[Math.max(0, Math.min(options.length - 1, at))])
      this.marked?.scrollIntoView({ block: "nearest" })
    } else if (event.key === "Enter") {
      // Enter right after typing means the rows that are still on their way.
      if (this.asked === this.input.value && !this.querySelector(".htmx-request")) this.choose(this.marked)
      else {
        this.waits = true
        this.input.dispatchEvent(new Event("search"))
      }
    } else return
    event.preventDefault()
  }

  mark(option) {
    this.marked?.setAttribute("aria-selected", "false")
    this.marked = option
    option?.setAttribute("aria-selected", "true")
    if (option) this.input.setAttribute("aria-activedescendant", option.id)
    else this.input.removeAttribute("aria-activedescendant")
  }

  choose(option) {
    if (!option) return
    const { model, modelId, account, accountLabel, name, context, price, priceKind, priceInput, priceOutput } = option.dataset
    const prices = { text: price, kind: priceKind, input: priceInput, output: priceOutput }
    option.dispatchEvent(new CustomEvent("model-chosen", { bubbles: true, detail: { model, modelId, account, accountLabel, name, context, prices } }))
    document.body.dispatchEvent(new CustomEvent("dialog-close"))
  }
})
