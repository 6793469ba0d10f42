// <drag-order> holds rows with a [data-grip] each. A grip that is dragged, by mouse or finger, takes its row along; let
// go, the new order is posted to the grip's data-url. Escape puts the row back. By keyboard, buttons do the same.
const EVENTS = ["pointermove", "pointerup", "pointercancel", "keydown"]

customElements.define("drag-order", class extends HTMLElement {
  connectedCallback() {
    this.addEventListener("pointerdown", this)
    this.addEventListener("htmx:afterRequest", this)
  }

  disconnectedCallback() {
    for (const type of EVENTS) document.removeEventListener(type, this)
  }

  handleEvent(event) {
    if (event.type === "pointerdown") this.take(event)
    else if (event.type === "pointermove") this.drag(event.clientY)
    else if (event.type === "pointerup") this.drop(true)
    else if (event.type === "pointercancel" || event.key === "Escape") this.drop(false)
    else if (event.type === "htmx:afterRequest" && event.target === this && !event.detail.successful) this.putBack()
  }

  take(event) {
    this.grip = event.target.closest("[data-grip]")
    if (!this.grip || event.button) return
    event.preventDefault()
    this.row = this.grip.closest("tr")
    this.followed = this.row.nextElementSibling
    this.row.classList.add("is-dragged")
    for (const type of EVENTS) document.addEventListener(type, this)
  }

  // The others move round the row: one that is taken out of the page would lose the pointer.
  drag(y) {
    const before = this.row.previousElementSibling
    const after = this.row.nextElementSibling
    if (before && y < middle(before)) this.row.after(before)
    else if (after && y > middle(after)) this.row.before(after)
    else return
    this.row.scrollIntoView({ block: "nearest" })
  }

  drop(isMeant) {
    for (const type of EVENTS) document.removeEventListener(type, this)
    this.row.classList.remove("is-dragged")
    const follows = this.row.nextElementSibling
    if (!isMeant) this.putBack()
    else if (follows !== this.followed) {
      const before = follows ? follows.dataset.account : "last"
      window.htmx.ajax("POST", this.grip.dataset.url, { source: this, target: "#accounts", swap: "outerHTML", values: { before } })
    }
  }

  putBack() {
    if (this.row) this.row.parentElement.insertBefore(this.row, this.followed)
  }
})

function middle(row) {
  const { top, height } = row.getBoundingClientRect()
  return top + height / 2
}
