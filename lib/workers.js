'use strict'

// The workers in which this process's own engine runs modules for the addon.

const { fs, workerThreads } = require('./node.js')
const { fileOf } = require('../platform.js')

/** The stack of a worker, in MB: what recurses deeply on the main thread, does so here. */
const STACK_MB = 16

/** Its heap, in MB: tables are in it, and to fill it can end the process. */
const HEAP_MB = 4096

/** How long a worker waits for another run, in milliseconds: it takes some 40 to start. */
const PATIENCE = 2_000

/** How many runs a worker has one after the other: what they leave to its collector is gone with it. */
const RUNS = 100

/** Those that have a run, by its number. */
const working = new Map()
/** Those that wait for one. */
const idle = []

/** Why other engines run modules here, where that is so. */
const { bun, deno } = process.versions
const elsewhere = (bun && 'Bun') ?? (deno && 'Deno')
const whyNot = elsewhere && `${elsewhere} does not end a worker that is in a loop without end`

/** Gives a run a worker, or ends the one that it has. Returns why none can be made, where that is so. */
function worker(native, number, start) {
  if (!start) return void working.get(number)?.end()
  if (whyNot) return whyNot
  // A thread that has been blocked since has not heard who is done.
  for (const busy of [...working.values()]) if (workerThreads.receiveMessageOnPort(busy.port)) busy.rest()
  try {
    const chosen = idle.pop() ?? new EngineWorker(native)
    chosen.begin(number)
  } catch (error) {
    return String(error?.message ?? error)
  }
}

class EngineWorker {
  #thread
  #patience
  #number
  #runs = 0
  #isOver = false

  constructor(native) {
    const program = fileOf('lib/engine.js')
    // That there is no file, an event would tell, which a blocked thread does not get.
    if (!program || !fs.existsSync(program)) throw new Error('its file `lib/engine.js` is not here, as in a bundle')
    const { port1, port2 } = new workerThreads.MessageChannel()
    const { WIZER_BINDING } = process.env
    this.port = port1
    this.#thread = new workerThreads.Worker(program, {
      workerData: { port: port2, flags: [...process.execArgv, process.env.NODE_OPTIONS ?? ''] },
      transferList: [port2],
      argv: [],
      execArgv: [],
      env: WIZER_BINDING === undefined ? {} : { WIZER_BINDING },
      resourceLimits: { stackSizeMb: STACK_MB, maxOldGenerationSizeMb: HEAP_MB },
    })
    // A process that has nothing else to do is not kept by it.
    this.#thread.unref()
    port1.on('message', () => this.rest())
    port1.unref()
    this.#thread.on('error', (error) => this.#gone(native, error.message))
    this.#thread.on('exit', () => this.#gone(native, 'the worker has ended'))
  }

  begin(number) {
    clearTimeout(this.#patience)
    this.#number = number
    this.#runs++
    working.set(number, this)
    this.port.postMessage(number)
  }

  /** A run is over. */
  rest() {
    if (this.#isOver) return
    this.#forget()
    if (this.#runs >= RUNS) return this.end()
    idle.push(this)
    this.#patience = setTimeout(() => this.end(), PATIENCE).unref()
  }

  end() {
    this.#isOver = true
    this.#forget()
    this.#thread.terminate()
  }

  #gone(native, reason) {
    this.#isOver = true
    if (this.#number !== undefined) native.refuseEngine(this.#number, reason)
    this.#forget()
  }

  #forget() {
    working.delete(this.#number)
    this.#number = undefined
    const at = idle.indexOf(this)
    if (at >= 0) idle.splice(at, 1)
  }
}

module.exports = { worker }
