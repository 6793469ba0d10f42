// <chat-view> keeps the end of the conversation in sight, but only for a reader who is there: whoever scrolled up to
// read stays where they are. A message of one's own always scrolls down.
customElements.define("chat-view", class extends HTMLElement {
  connectedCallback() {
    this.scroller = this.querySelector("[data-scroll]")
    this.isPinned = true
    this.scroller.addEventListener("scroll", this, { passive: true })
    for (const type of ["reply-grew", "htmx:afterSwap", "htmx:oobAfterSwap", "click"]) this.addEventListener(type, this)
    this.sizes = new ResizeObserver(() => this.follow())
    this.sizes.observe(this.scroller)
    this.follow()
  }

  disconnectedCallback() {
    this.sizes.disconnect()
  }

  handleEvent(event) {
    const { scroller } = this
    if (event.type === "scroll") {
      this.isPinned = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48
    } else if (event.type === "click") {
      this.suggest(event.target.closest("[data-suggestion]"))
    } else {
      if (event.type === "htmx:afterSwap" && event.detail.target?.id === "turns") this.isPinned = true
      if (event.type === "htmx:afterSwap" && event.detail.target?.id === "earlier") return
      this.follow()
    }
  }

  follow() {
    if (this.isPinned) this.scroller.scrollTop = this.scroller.scrollHeight
  }

  suggest(button) {
    if (!button) return
    const field = this.querySelector("#composer textarea")
    field.value = button.textContent
    field.dispatchEvent(new Event("input", { bubbles: true }))
    field.focus()
  }
})
