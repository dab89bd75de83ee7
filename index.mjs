// The same names as in index.js, for `import`.
import wizer from './index.js'

export const { wizerSync, snapshot, Session, WizerError } = wizer
export { wizer, wizer as default }
