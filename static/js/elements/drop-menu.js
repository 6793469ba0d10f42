// A <details class="menu"> closes like a menu: on a click beside it or on one of its items, and on Escape, which then
// does nothing else (it stops no reply) and leaves the focus on the menu's button.
const openMenus = () => document.querySelectorAll("details.menu[open]")

document.addEventListener("click", (event) => {
  for (const menu of openMenus()) if (!event.target.closest("summary") || !menu.contains(event.target)) menu.open = false
})

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return
  for (const menu of openMenus()) {
    event.preventDefault()
    menu.open = false
    menu.querySelector("summary").focus()
  }
}, { capture: true })
