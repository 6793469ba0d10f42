// When a request of htmx comes to nothing, the reader is told what happened and what to do. Nothing is swapped then, so
// what was typed stays where it is. One notice per sentence at a time, however often a poll fails.
const BY_STATUS = {
  403: "This page is out of date. Copy what you wrote, reload, and try again.",
  404: "That is not there any more. Reload the page.",
  429: "Too many requests at once. Wait a moment, then try again.",
  503: "Switchboard is starting or overloaded. Try again in a few seconds.",
}
const BROKEN = "Something went wrong on the server. What you wrote is still here; try again."
const UNREACHED = "Switchboard cannot be reached. What you wrote is still here; try again."
const SIGNED_OUT = "You are signed out. Copy what you wrote, then"
const SIGN_IN = "/sign-in/login/"

function tell(sentence, link) {
  const place = document.querySelector("dialog[open]") ?? document.querySelector("#messages")
  if ([...place.querySelectorAll("toast-message span")].some((span) => span.textContent.startsWith(sentence))) return
  const toast = document.createElement("toast-message")
  toast.className = "message message--error"
  toast.setAttribute("role", "alert")
  const words = document.createElement("span")
  words.textContent = sentence
  if (link) {
    const way = document.createElement("a")
    way.className = "link"
    way.href = `${link}?next=${encodeURIComponent(location.pathname)}`
    way.textContent = "sign in"
    words.append(" ", way, ".")
  }
  const button = document.createElement("button")
  button.type = "button"
  button.className = "mute"
  button.textContent = "✕"
  button.setAttribute("aria-label", "Dismiss")
  toast.append(words, button)
  place.append(toast)
}

document.addEventListener("htmx:sendError", () => tell(UNREACHED))
document.addEventListener("htmx:timeout", () => tell(UNREACHED))
document.addEventListener("htmx:responseError", ({ detail }) => tell(BY_STATUS[detail.xhr.status] ?? BROKEN))

// A session that is over answers with the sign-in page, which belongs in no part of this one.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail
  if (!xhr.responseURL || location.pathname === SIGN_IN || new URL(xhr.responseURL).pathname !== SIGN_IN) return
  event.detail.shouldSwap = false
  tell(SIGNED_OUT, SIGN_IN)
})
