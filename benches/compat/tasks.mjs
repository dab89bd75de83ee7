// What packages are for, done by their own JavaScript: once as they are published, and once with the initialized module in
// the place of their own. Both have to give the same answer.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'

/**
 * @typedef {object} Task
 * @property {import('./lib/fetch.mjs').Pin[]} [beside]  packages that this one needs
 * @property {string} does  what it does, for people
 * @property {(tools: Tools) => unknown} run  gives an answer that JSON can hold
 *
 * @typedef {object} Tools
 * @property {NodeRequire} require           of a directory in which the package is installed
 * @property {(name: string) => Promise<any>} load  imports a module from there
 * @property {(name: string) => string} path  where a file of a package is: `name/of/file`
 */

/** @type {Record<string, Task>} by the row */
export const tasks = {
  ruby: {
    does: 'evaluates a script',
    beside: [
      {
        npm: '@ruby/wasm-wasi',
        version: '2.10.1',
        integrity: 'sha512-OGSxxDraRq8alWQsWqDJQsaAavQwhwIVRkDozpPucjD1tUofMF6n99Y8Ia1bpDhOAXCwiNIHqhumfqFw0H0DZw==',
      },
      {
        npm: '@bjorn3/browser_wasi_shim',
        version: '0.4.2',
        integrity: 'sha512-/iHkCVUG3VbcbmEHn5iIUpIrh7a7WPiwZ3sHy4HZKZzBdSadwdddYDZAII2zBvQYV0Lfi8naZngPCN7WPHI/hA==',
      },
    ],
    async run({ load, path }) {
      const { DefaultRubyVM } = await load('@ruby/wasm-wasi/dist/node')
      const { vm } = await DefaultRubyVM(new WebAssembly.Module(readFileSync(path('@ruby/3.4-wasm-wasi/dist/ruby.wasm'))))
      return vm.eval('[RUBY_VERSION, (1..20).reduce(:*), "wizer".scan(/[a-m]/), { a: 1 }.map { |k, v| [v, k] }].inspect').toString()
    },
  },
  quickjs: {
    does: 'evaluates a script',
    beside: [
      {
        npm: 'quickjs-emscripten-core',
        version: '0.32.0',
        integrity: 'sha512-QFnPfjFey8EqknSrSxe1hZrf1/8z7/6s1QzGOmKo6++02r7QRRX7ZoyNaZh7JuVjWsVW87KnQrbZqnHkOAzUyg==',
      },
      {
        npm: '@jitl/quickjs-ffi-types',
        version: '0.32.0',
        integrity: 'sha512-v9T+GQpmk43VDJ7d72sf0Nexhk+ArvtUihW27dy7lqAl0zBObFKtSBBIm5RBjwIhE8VwsPPm9PNuvPvNqLWUEg==',
      },
    ],
    async run({ load }) {
      const { newQuickJSWASMModuleFromVariant } = await load('quickjs-emscripten-core')
      const { default: variant } = await load('@jitl/quickjs-wasmfile-release-sync')
      const engine = await newQuickJSWASMModuleFromVariant(variant)
      return engine.evalCode('JSON.stringify([1, 2, 3].map((n) => n ** n).concat("a-b".split(/-/), 2n ** 64n + ""))')
    },
  },
  'sql.js': {
    does: 'queries a table',
    async run({ require }) {
      const { Database } = await require('sql.js')()
      const db = new Database()
      db.run('create table t (a integer, b text); insert into t values (1, "one"), (2, "two"), (3, null)')
      const answer = db.exec('select sqlite_version(), sum(a), group_concat(upper(b)), json_array(1, 2.5, "x") from t')
      return [answer, Buffer.from(db.export()).toString('base64')]
    },
  },
  'node-sqlite3': {
    does: 'queries a table',
    run({ require }) {
      const { Database } = require('node-sqlite3-wasm')
      const db = new Database(':memory:')
      db.exec('create table t (a integer, b text)')
      for (let i = 0; i < 100; i++) db.run('insert into t values (?, ?)', [i, `row ${i}`])
      return db.all('select sqlite_version() as version, count(*) as n, max(b) as last from t where a % 7 = 3')
    },
  },
  'sqlite-wasm': {
    does: 'queries a table',
    async run({ load, path }) {
      // This version knows browsers only.
      Object.assign(globalThis, { self: globalThis, location: new URL('file:///'), importScripts: () => {} })
      const { default: sqlite3InitModule } = await load('@sqlite.org/sqlite-wasm')
      const wasmBinary = readFileSync(path('@sqlite.org/sqlite-wasm/sqlite-wasm/jswasm/sqlite3.wasm'))
      const sqlite3 = await sqlite3InitModule({ wasmBinary })
      const db = new sqlite3.oo1.DB(':memory:')
      db.exec("create table t (a integer, b text); insert into t values (1, 'one'), (2, 'two')")
      return db.selectObjects('select sqlite_version() as version, sum(a) as sum, max(b) as last from t')
    },
  },
  pglite: {
    does: 'queries a database',
    async run({ load }) {
      const { PGlite } = await load('@electric-sql/pglite')
      const db = await PGlite.create()
      await db.exec("create table t (a int primary key, b text); insert into t values (1, 'one'), (2, 'two')")
      return (await db.query('select sum(a) as sum, string_agg(upper(b), $1 order by a) as all from t', ['-'])).rows
    },
  },
  swipl: {
    does: 'solves a query',
    async run({ load }) {
      const { default: SWIPL } = await load('swipl-wasm')
      const { prolog } = await SWIPL({ arguments: ['-q'] })
      const answers = []
      for (const answer of prolog.query('member(X, [a, b, c]), X \\== b')) answers.push(answer.X)
      return answers
    },
  },
  'web-tree-sitter': {
    does: 'parses with a grammar',
    beside: [
      {
        npm: 'tree-sitter-go',
        version: '0.25.0',
        integrity: 'sha512-APBc/Dq3xz/e35Xpkhb1blu5UgW+2E3RyGWawZSCNcbGwa7jhSQPS8KsUupuzBla8PCo8+lz9W/JDJjmfRa2tw==',
      },
    ],
    async run({ load, path }) {
      const { Language, Parser } = await load('web-tree-sitter')
      await Parser.init()
      const parser = new Parser()
      parser.setLanguage(await Language.load(path('tree-sitter-go/tree-sitter-go.wasm')))
      return parser.parse('package main\nfunc add(a, b int) int { return a + b }\n').rootNode.toString()
    },
  },
  undici: {
    does: 'asks a server on this machine',
    async run({ require }) {
      const { request } = require('undici')
      const server = createServer(async (incoming, response) => {
        response.writeHead(201, { 'x-method': incoming.method, 'content-type': 'text/plain' })
        response.end(`${incoming.url} ${await text(incoming)}`)
      })
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      try {
        const { port } = server.address()
        const answer = await request(`http://127.0.0.1:${port}/path?a=b`, { method: 'PUT', body: 'x'.repeat(1000), reset: true })
        return [answer.statusCode, answer.headers['x-method'], await answer.body.text()]
      } finally {
        server.close()
      }
    },
  },
  'es-module-lexer': {
    does: 'finds imports and exports',
    async run({ load }) {
      const { init, parse } = await load('es-module-lexer')
      await init
      const [imports, exports] = parse('import { a } from "b"; export const c = await import("d"); export { a as e }; import.meta.url')
      return [imports, exports]
    },
  },
  lightningcss: {
    does: 'minifies a style sheet',
    async run({ load }) {
      const { transform } = await load('lightningcss-wasm')
      const code = Buffer.from('.a { color: rgb(255, 0, 0); &:hover { margin: 1px 1px 1px 1px } } @media (width >= 600px) { .a { inset: 0 } }')
      const { code: minified, warnings } = transform({ filename: 'a.css', code, minify: true, targets: { safari: 15 << 16 } })
      return [Buffer.from(minified).toString(), warnings]
    },
  },
  resvg: {
    does: 'renders a picture',
    async run({ require, path }) {
      const { initWasm, Resvg } = require('@resvg/resvg-wasm')
      await initWasm(readFileSync(path('@resvg/resvg-wasm/index_bg.wasm')))
      const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="15" fill="#c0ffee" stroke="red"/></svg>'
      return Buffer.from(new Resvg(svg).render().asPng()).toString('base64')
    },
  },
  swc: {
    does: 'transforms TypeScript',
    run({ require }) {
      const { transformSync } = require('@swc/wasm')
      const options = { jsc: { parser: { syntax: 'typescript' }, target: 'es5', minify: { mangle: true, compress: true } }, minify: true }
      return transformSync('enum E { A, B } export class C<T> { #x: T; f = async (y?: E) => y ?? E.B }', options).code
    },
  },
  draco: {
    does: 'decodes a point cloud',
    async run({ require }) {
      const { createDecoderModule, createEncoderModule } = require('draco3d')
      const [encoderModule, decoderModule] = [await createEncoderModule({}), await createDecoderModule({})]
      const builder = new encoderModule.PointCloudBuilder()
      const cloud = new encoderModule.PointCloud()
      const points = Float32Array.from({ length: 300 }, (_, i) => Math.sin(i) * 10)
      builder.AddFloatAttribute(cloud, encoderModule.POSITION, 100, 3, points)
      const encoded = new encoderModule.DracoInt8Array()
      const length = new encoderModule.Encoder().EncodePointCloudToDracoBuffer(cloud, false, encoded)
      const bytes = Int8Array.from({ length }, (_, i) => encoded.GetValue(i))

      const decoder = new decoderModule.Decoder()
      const decoded = new decoderModule.PointCloud()
      const status = decoder.DecodeArrayToPointCloud(bytes, length, decoded)
      const values = new decoderModule.DracoFloat32Array()
      decoder.GetAttributeFloatForAllPoints(decoded, decoder.GetAttribute(decoded, 0), values)
      return [status.ok(), Array.from({ length: values.size() }, (_, i) => values.GetValue(i))]
    },
  },
  highs: {
    does: 'solves a linear program',
    async run({ require }) {
      const solver = await require('highs')({})
      return solver.solve('Maximize\n obj: x + 2 y + 3 z\nSubject To\n a: x + y + z <= 10\n b: x - y >= 1\n c: z <= 4\nGeneral\n z\nEnd\n')
    },
  },
  micropython: {
    does: 'runs a script',
    async run({ load }) {
      const lines = []
      const { loadMicroPython } = await load('@micropython/micropython-webassembly-pyscript/micropython.mjs')
      const python = await loadMicroPython({ stdout: (line) => lines.push(line) })
      python.runPython('import json\nprint(json.dumps({"a": [x ** 2 for x in range(5)]}), 2 ** 100)')
      return lines
    },
  },
  gofmt: {
    does: 'formats a program',
    async run({ load }) {
      const { format } = await load('@wasm-fmt/gofmt')
      return format('package main\nimport "fmt"\nfunc main(){fmt.Println( "a",1+2 )\nif true{return}}\n')
    },
  },
  'sh-syntax': {
    does: 'formats a shell script',
    async run({ load }) {
      const { print } = await load('sh-syntax')
      const script = 'if [ -f x ]\nthen echo  "$(ls|wc -l)" |cat\nfi'
      return print(script, { originalText: script })
    },
  },
}
