'use strict'

// The workers in which this process's own engine runs modules for the addon.

const { fs, workerThreads } = require('./node.js')
const { fileOf } = require('../platform.js')

/** The stack of a worker, in MB: what recurses deeply on the main thread, does so here. */
const STACK_MB = 16

/** How long a worker waits for another run, in milliseconds: it takes some 30 to start. */
const PATIENCE = 2_000

/** How many runs a worker has one after the other: what they leave to its collector is gone with it. */
const RUNS = 100

/** Those that have a run, by its number. */
const working = new Map()
/** Those that wait for one. */
const idle = []

/** Gives a run a worker, or ends the one that it has. Throws where none can be made. */
function worker(native, number, start) {
  if (!start) return end(working.get(number))
  // A thread that has been blocked since has not heard who is done.
  for (const busy of [...working.values()]) if (workerThreads.receiveMessageOnPort(busy.port)) rest(busy)
  const chosen = idle.pop() ?? make(native)
  clearTimeout(chosen.patience)
  chosen.number = number
  chosen.runs++
  working.set(number, chosen)
  chosen.port.postMessage(number)
}

function make(native) {
  const program = fileOf('lib/engine.js')
  // That there is no file, an event would tell, which a blocked thread does not get.
  if (!program || !fs.existsSync(program)) throw new Error('its file `lib/engine.js` is not here, as in a bundle')
  const { port1: port, port2 } = new workerThreads.MessageChannel()
  const thread = new workerThreads.Worker(program, {
    workerData: { port: port2 },
    transferList: [port2],
    argv: [],
    execArgv: [],
    env: {},
    resourceLimits: { stackSizeMb: STACK_MB },
  })
  const made = { thread, port, runs: 0 }
  // A process that has nothing else to do is not kept by it.
  thread.unref()
  port.on('message', () => rest(made))
  port.unref()
  const gone = (reason) => {
    forget(made)
    if (made.number !== undefined) native.refuseEngine(made.number, reason)
  }
  thread.on('error', (error) => gone(error.message))
  thread.on('exit', () => gone('the worker has ended'))
  return made
}

/** A run is over. */
function rest(done) {
  forget(done)
  done.number = undefined
  if (done.runs >= RUNS) return end(done)
  idle.push(done)
  done.patience = setTimeout(() => end(done), PATIENCE).unref()
}

function forget(gone) {
  working.delete(gone.number)
  const at = idle.indexOf(gone)
  if (at >= 0) idle.splice(at, 1)
}

function end(over) {
  if (!over) return
  forget(over)
  over.thread.terminate()
}

module.exports = { worker }
