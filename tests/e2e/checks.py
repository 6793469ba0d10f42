"""What a page can be asked in the browser: names, references, contrast, width. Each answers with a list of problems."""

from __future__ import annotations

from playwright.sync_api import Page

NAMES = r"""() => {
  const root = document.querySelector("dialog[open]") ?? document.body
  const problems = []
  const tell = (element, what) => problems.push(`${what}: ${element.outerHTML.replace(/\s+/g, " ").slice(0, 120)}`)
  const words = (element) => {
    const copy = element.cloneNode(true)
    for (const hidden of copy.querySelectorAll("[aria-hidden=true], [hidden]")) hidden.remove()
    return copy.textContent.trim()
  }
  const name = (element) => element.getAttribute("aria-label")?.trim()
    || (element.getAttribute("aria-labelledby") ?? "").split(/\s+/).map((id) => document.getElementById(id)?.textContent.trim() ?? "").join(" ").trim()
    || [...(element.labels ?? [])].map(words).join(" ").trim()
    || (element.matches("input, select, textarea") ? (element.type === "submit" ? element.value : "") : words(element))
    || element.getAttribute("alt") || ""
  const shown = (element) => element.checkVisibility({ visibilityProperty: true })
  for (const element of root.querySelectorAll("a[href], button, summary, input:not([type=hidden]), select, textarea, [role=button], [role=tab], [role=option], [role=row], dialog, nav, [role=listbox], [role=grid]"))
    if (shown(element) && !name(element) && !(element.matches("nav") && root.querySelectorAll("nav").length === 1)) tell(element, "no name")
  for (const element of root.querySelectorAll("[role=option] :is(a[href], button, input, select, textarea)")) tell(element, "cannot be reached in an option")
  for (const element of root.querySelectorAll("img:not([alt]), svg:not([aria-hidden], [role], [aria-label])")) tell(element, "no text for a picture")
  for (const attribute of ["aria-describedby", "aria-labelledby", "aria-controls", "for"])
    for (const element of root.querySelectorAll(`[${attribute}]`))
      for (const id of element.getAttribute(attribute).split(/\s+/))
        if (id && shown(element) && !document.getElementById(id)) tell(element, `${attribute} leads nowhere`)
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id)
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) problems.push(`id twice: ${id}`)
  for (const element of root.querySelectorAll("[tabindex]")) if (element.tabIndex > 0) tell(element, "jumps the tab order")
  if (document.querySelectorAll("main").length !== 1) problems.push("not one main")
  if (document.querySelectorAll("h1").length !== 1) problems.push(`${document.querySelectorAll("h1").length} h1`)
  if (!document.title.trim()) problems.push("no title")
  if (!document.documentElement.lang) problems.push("no language")
  return problems
}"""

CONTRAST = r"""(least) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
  const cache = new Map()
  const rgba = (colour) => {
    if (!cache.has(colour)) {
      canvas.clearRect(0, 0, 1, 1)
      canvas.fillStyle = colour
      canvas.fillRect(0, 0, 1, 1)
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
      cache.set(colour, [r, g, b, a / 255])
    }
    return cache.get(colour)
  }
  const over = ([r, g, b, a], under) => [r, g, b].map((value, at) => value * a + under[at] * (1 - a))
  const behind = (element) => {
    if (!element) return rgba(getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "#fff").slice(0, 3)
    const colour = rgba(getComputedStyle(element).backgroundColor)
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.matches("dialog") ? null : element.parentElement))
  }
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4 })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const root = document.querySelector("dialog[open]") ?? document.body
  const problems = new Set()
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || element.closest("script, style, template, textarea, :disabled, .for-screen-reader, .skip-link, option")) continue
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue
    const style = getComputedStyle(element)
    const under = behind(element)
    const text = over(rgba(element.closest("svg") ? style.fill : style.color), under)
    const [brighter, darker] = [light(text), light(under)].sort((a, b) => b - a)
    const ratio = (brighter + 0.05) / (darker + 0.05)
    const size = parseFloat(style.fontSize)
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : least
    if (ratio < wanted) problems.add(`${ratio.toFixed(2)}: ${element.tagName.toLowerCase()}.${element.className} “${walker.currentNode.data.trim().slice(0, 30)}”`)
  }
  return [...problems]
}"""

WIDER = r"""() => {
  const width = document.documentElement.clientWidth
  const problems = []
  if (document.documentElement.scrollWidth > width) problems.push(`the page: ${document.documentElement.scrollWidth} > ${width}`)
  const { scrollHeight, clientHeight } = document.documentElement
  if (document.querySelector(".app") && scrollHeight > clientHeight + 1) problems.push(`the frame itself scrolls: ${scrollHeight} > ${clientHeight}`)
  for (const selector of [".main", ".bar", ".page", "[data-scroll]", "dialog[open]", ".selector__scroll", ".side", ".plain"])
    for (const element of document.querySelectorAll(selector))
      if (element.scrollWidth > element.clientWidth + 1) {
        const clipped = (child) => child !== element && (getComputedStyle(child).overflowX !== "visible" || clipped(child.parentElement))
        const guilty = [...element.querySelectorAll("*")].find((child) => child.getBoundingClientRect().right > width + 1 && child.checkVisibility() && !clipped(child.parentElement))
        problems.push(`${selector}: ${element.scrollWidth} > ${element.clientWidth} by ${guilty?.tagName}.${guilty?.className}`)
      }
  return problems
}"""


def nameless(page: Page) -> list[str]:
    """Controls without a name, references that lead nowhere, doubled ids, a page without its one main and h1."""
    return page.evaluate(NAMES)


def faint(page: Page, least: float = 4.5) -> list[str]:
    """Visible text with less contrast than WCAG 2.2 AA asks for (3 for large text)."""
    return page.evaluate(CONTRAST, least)


def wider(page: Page) -> list[str]:
    """Regions that scroll sideways (tables, code and chips have their own, inner ones, which may), and the frame round
    the one region that scrolls down, if something stands out of it."""
    return page.evaluate(WIDER)
