// The same names as in index.d.ts, for `import`: there the default export is `wizer` itself.
import { wizer } from './index.js'

export * from './index.js'
export default wizer
