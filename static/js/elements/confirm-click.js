// A button with [data-confirm] asks before its form is sent: for losses that one sentence can explain.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm
  if (question && !window.confirm(question)) event.preventDefault()
})
