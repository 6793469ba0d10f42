// <chat-composer> is where one writes: the field grows with its text, Enter sends, Shift+Enter breaks the line, and a
// model chosen in the selector (the `model-chosen` event) replaces the picker. A text survives a failed send. The selector
// is told what is chosen now and how long the draft is, so that it can say what sending would cost.
customElements.define("chat-composer", class extends HTMLElement {
  connectedCallback() {
    this.field = this.querySelector("textarea")
    this.form = this.querySelector("form")
    this.field.addEventListener("input", this)
    this.field.addEventListener("keydown", this)
    this.addEventListener("htmx:configRequest", this)
    document.addEventListener("model-chosen", this)
    this.dialog = document.querySelector("#dialog")
    this.dialog?.addEventListener("close", this)
    this.grow()
    if (this.field.value) this.field.setSelectionRange(this.field.value.length, this.field.value.length)
    if (!this.dialog?.open) this.focusField()
  }

  // Not on a touch screen: the keyboard would jump up unasked.
  focusField() {
    if (matchMedia("(hover: hover)").matches) this.field.focus({ preventScroll: true })
  }

  disconnectedCallback() {
    document.removeEventListener("model-chosen", this)
    this.dialog?.removeEventListener("close", this)
  }

  handleEvent(event) {
    if (event.type === "input") this.typed()
    else if (event.type === "model-chosen") this.pick(event.detail)
    else if (event.type === "htmx:configRequest") this.describe(event)
    else if (event.type === "close") document.activeElement === document.body && this.focusField()
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault()
      if (!this.form.querySelector("[type=submit]").disabled) this.form.requestSubmit()
    }
  }

  typed() {
    this.grow()
    this.querySelector(".composer__problems")?.remove()
    this.form.classList.remove("composer--invalid")
    this.field.removeAttribute("aria-invalid")
    this.field.removeAttribute("aria-describedby")
  }

  // CSS does it where the browser can (`field-sizing`); elsewhere the lines are counted. No inline style: see the CSP.
  grow() {
    if (!CSS.supports("field-sizing", "content")) this.field.rows = Math.min(this.field.value.split("\n").length, 12)
  }

  describe({ target, detail }) {
    if (!target.matches(".picker")) return
    const { alias, model, account, parent } = this.form.elements
    for (const { name, value } of [alias, model, account, parent]) if (value) detail.parameters[name] = value
    detail.parameters.draft = new TextEncoder().encode(this.field.value.trim()).length
  }

  async pick({ model, account, alias }) {
    const url = new URL(this.querySelector("[data-picker-url]").dataset.pickerUrl, location)
    url.search = new URLSearchParams({ model: model ?? "", account: account ?? "", alias: alias ?? "" })
    await window.htmx.ajax("GET", url.pathname + url.search, { target: "#picker", swap: "outerHTML" })
    this.field.focus()
  }
})
