// One key, one link or button: [data-shortcut="n"] is clicked when N is pressed outside a text field and a dialog.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
  if (event.target.closest("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return
  const target = document.querySelector(`[data-shortcut="${CSS.escape(event.key.toLowerCase())}"]`)
  if (!target) return
  event.preventDefault()
  target.click()
})
