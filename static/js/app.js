// The list of elements. Each is one file, works wherever it stands, and talks by events.
import "./elements/modal-dialog.js"
import "./elements/secret-field.js"
import "./elements/side-sheet.js"
import "./elements/toast-message.js"
import "./elements/shortcuts.js"
