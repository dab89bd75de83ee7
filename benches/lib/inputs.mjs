// What is fed to wizer: modules, how each is given to it, and the scripts that
// they load. How they are timed and judged is elsewhere.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { freemem } from 'node:os'
import { dirname, join } from 'node:path'
import vm from 'node:vm'

const require = createRequire(import.meta.url)
const scripts = new URL('../scripts/', import.meta.url)

/**
 * @typedef {object} Script
 * @property {string} name
 * @property {string} source  JavaScript
 */

/** @returns {Script} */
export function helloScript() {
  return { name: 'hello.js', source: readFileSync(new URL('hello.js', scripts), 'utf8') }
}

/**
 * The same behind a library of which it uses nothing: what is there to initialize is lodash.
 *
 * @returns {Script}
 */
export function lodashScript() {
  const library = readFileSync(require.resolve('lodash/lodash.js'), 'utf8')
  return { name: 'lodash.js', source: `${library}\n${helloScript().source}` }
}

/** Modules are added to the big script until it has this many bytes. */
const BIG_SCRIPT_BYTES = 5_000_000

/**
 * About 5 MB of JavaScript in the shape of a bundle: many small CommonJS
 * modules with functions, classes, tables and strings, of which the top level
 * loads every one and calls a part. ASCII only, and the same bytes on every machine.
 *
 * @returns {Script}
 */
export function bigScript() {
  const random = lcg(0x5eed)
  const parts = [BUNDLE_HEAD]
  let bytes = BUNDLE_HEAD.length
  let modules = 0
  while (bytes < BIG_SCRIPT_BYTES) {
    const part = bundleModule(modules++, random)
    parts.push(part)
    bytes += part.length
  }
  parts.push(bundleTail(modules))
  return { name: 'big.js', source: parts.join('') }
}

/**
 * What the script answers to a request, according to the V8 that runs this
 * program: an oracle that has nothing to do with WebAssembly.
 *
 * @param {Script} script
 * @returns {string} the body of the response
 */
export function expectedBody(script) {
  let handler
  let answer
  const context = vm.createContext({
    addEventListener: (type, listener) => {
      if (type === 'fetch') handler = listener
    },
    Response: class {
      constructor(body) {
        this.body = String(body)
      }
    },
  })
  vm.runInContext(script.source, context, { filename: script.name })
  handler({ respondWith: (response) => (answer = response) })
  return answer.body
}

/**
 * `fastly.wasm`: SpiderMonkey and Fastly's host bindings. Its initialization
 * function reads a file name from stdin, and runs that file's top level.
 */
export function fastly() {
  const root = join(dirname(require.resolve('@fastly/js-compute')), '..')
  return {
    name: 'fastly.wasm',
    package: '@fastly/js-compute',
    version: JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version,
    path: join(root, 'fastly.wasm'),
    initFunc: 'wizer.initialize',
    resumeFunc: 'wizer.resume',
    /** Imports from modules with this prefix are Fastly's, the rest is WASI. */
    hostPrefix: 'fastly_',

    /** What `@fastly/js-compute` writes to wizer's stdin when it has bundled the script. */
    stdin: (scriptName) => `${scriptName} --legacy-script`,

    /** The arguments `@fastly/js-compute` gives, which spells the output `-o=PATH`. */
    args: (output) => [
      '--inherit-env=true',
      '--allow-wasi',
      '--dir=.',
      '-r',
      '_start=wizer.resume',
      '--wasm-bulk-memory=true',
      `-o=${output}`,
      join(root, 'fastly.wasm'),
    ],

    /** The variables it adds to the environment, which the module inherits. */
    env: {
      ENABLE_EXPERIMENTAL_HIGH_RESOLUTION_TIME_METHODS: '0',
      ENABLE_EXPERIMENTAL_HTTP_CACHE: '0',
      RUST_MIN_STACK: String(Math.max(8 * 1024 * 1024, Math.floor(freemem() * 0.1))),
    },
  }
}

/** Numerical Recipes' linear congruential generator; the high bits are the good ones. */
function lcg(seed) {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const WORDS = (
  'account address amount array asset batch bound buffer cache channel chunk client column config ' +
  'context count cursor digest domain edge element encoder entry event factor field filter frame ' +
  'group handle header index item kernel label layer length limit list locale margin marker matrix ' +
  'member message method metric module node number object offset option order origin output owner ' +
  'packet page parent parser path pattern payload phase pixel point policy port prefix price query ' +
  'queue range record region render report request resource result role route sample schema scope ' +
  'score segment sequence series session shape signal size slot source stack state status stream ' +
  'string style symbol table target task template theme token total trace tree type union unit ' +
  'user value vector version view weight widget window worker zone'
).split(' ')

const BUNDLE_HEAD = `// Generated by benches/lib/inputs.mjs.
(function () {
'use strict';
var factories = [], loaded = [];
function define(id, factory) { factories[id] = factory; }
function load(id) {
  if (!loaded[id]) {
    var module = loaded[id] = { exports: {} };
    factories[id](module, module.exports, load);
  }
  return loaded[id].exports;
}
function mix(hash, text) {
  for (var i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619) >>> 0;
  return hash;
}
`

/** One CommonJS module of about 4.5 kB. */
function bundleModule(id, random) {
  const word = () => WORDS[random(WORDS.length)]
  const camel = () => word() + word().replace(/^./, (c) => c.toUpperCase())
  const sentence = (n) => Array.from({ length: n }, word).join(' ')
  const lines = [`define(${id}, function (module, exports, load) {`, "'use strict';"]

  lines.push(id === 0 ? 'var before = { size: 0 };' : `var before = load(${random(id)});`)

  lines.push('var table = {')
  for (let i = 0; i < 12; i++) {
    lines.push(
      `  ${camel()}${i}: { id: ${random(1e6)}, name: ${JSON.stringify(camel())}, tags: [${random(100)}, ${random(100)}, ${random(100)}], text: ${JSON.stringify(sentence(5))} },`,
    )
  }
  lines.push('};')

  const functions = []
  for (let i = 0; i < 8; i++) {
    const name = `${camel()}${i}`
    const [a, b] = [word() + 'A', word() + 'B']
    functions.push(name)
    lines.push(
      `function ${name}(${a}, ${b}) {`,
      `  var result = ${random(1e6)};`,
      `  for (var i = 0; i < ${1 + random(6)}; i++) {`,
      `    if ((${a} + i) % ${2 + random(9)} === 0) result = (result ^ Math.imul(${b} + i, ${1 + random(1e6)})) >>> 0;`,
      `    else result = (result + ${a} * ${1 + random(99)}) >>> 0;`,
      '  }',
      `  return mix(result, ${JSON.stringify(sentence(3))});`,
      '}',
    )
  }

  const className = camel().replace(/^./, (c) => c.toUpperCase())
  lines.push(
    `class ${className} {`,
    `  constructor(seed) { this.items = new Map(); this.seed = seed; this.label = ${JSON.stringify(sentence(2))}; }`,
    `  get size() { return this.items.size; }`,
    `  add(key, value) { this.items.set(key, { value, weight: value % ${2 + random(50)} }); return this; }`,
    `  matches(text) { return /${word()}|${word()}[a-z]{2,${3 + random(6)}}/.test(text); }`,
    `  fold(seed) { let sum = mix(seed + this.seed, this.label); for (const [key, { value, weight }] of this.items) sum = (mix(sum, key) + value * weight) >>> 0; return sum; }`,
    '}',
    'exports.table = table;',
    'exports.size = before.size + 1;',
    `exports.${className} = ${className};`,
    'exports.run = function (n) {',
    `  var store = new ${className}(n + before.size);`,
    '  for (var key in table) store.add(key, table[key].id + (store.matches(table[key].text) ? 1 : 0));',
    `  return store.fold(${functions[random(functions.length)]}(n, ${functions[random(functions.length)]}(n, store.size)));`,
    '};',
    `exports.all = [${functions.join(', ')}];`,
    '});',
    '',
  )
  return lines.join('\n')
}

/** Loads every module, runs one in four, and answers requests with the checksum. */
function bundleTail(modules) {
  return `var checksum = 2166136261;
for (var id = 0; id < ${modules}; id++) {
  var exported = load(id);
  checksum = mix(checksum, Object.keys(exported.table).join());
  if (id % 4 === 0) checksum = (checksum ^ exported.run(id)) >>> 0;
}
addEventListener('fetch', function (event) {
  event.respondWith(new Response(${modules} + ' modules, checksum ' + checksum, { headers: { 'content-type': 'text/plain' } }));
});
})();
`
}
