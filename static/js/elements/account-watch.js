// <account-watch data-url data-seen> asks every few seconds, while the page is in sight, whether an account stands
// otherwise than was seen. The answer brings the badge, the list where it is shown, and this element with the new mark.
const EVERY = 5000
const BUSY = "#accounts .htmx-request, #accounts .is-dragged" // the list is not drawn anew under somebody's hands

customElements.define("account-watch", class extends HTMLElement {
  connectedCallback() {
    this.timer = setInterval(() => this.look(), EVERY)
    document.addEventListener("visibilitychange", this)
  }

  disconnectedCallback() {
    clearInterval(this.timer)
    document.removeEventListener("visibilitychange", this)
  }

  handleEvent() {
    this.look()
  }

  async look() {
    if (document.hidden || this.isAsking || document.querySelector(BUSY)) return
    this.isAsking = true
    try {
      const answer = await fetch(`${this.dataset.url}?seen=${this.dataset.seen}`, {
        headers: { "HX-Request": "true", "HX-Current-URL": location.href },
      })
      if (answer.redirected) return this.disconnectedCallback() // signed out: the next click says so
      const news = answer.status === 200 ? await answer.text() : ""
      if (news && !document.querySelector(BUSY)) window.htmx.swap(this, news, { swapStyle: "none" })
    } catch {
      // Switchboard cannot be reached: the next time, perhaps.
    } finally {
      this.isAsking = false
    }
  }
})
