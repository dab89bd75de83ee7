'use strict'

// The workers in which this process's own engine runs modules for the addon.

const { path, workerThreads } = require('./node.js')

/** The workers that are there, by the numbers of their runs. */
const workers = new Map()

/** The stack of a worker, in MB: what recurses deeply on the main thread, does so here. */
const STACK_MB = 16

/** Makes the worker of a run, or ends it. Throws where none can be made. */
function worker(native, number, start) {
  if (!start) return void workers.get(number)?.terminate()
  const made = new workerThreads.Worker(path.join(__dirname, 'engine.js'), {
    workerData: { wizer: number },
    argv: [],
    execArgv: [],
    env: {},
    resourceLimits: { stackSizeMb: STACK_MB },
  })
  workers.set(number, made)
  // A process that has nothing else to do is not kept by it.
  made.unref()
  made.on('error', (error) => native.refuseEngine(number, error.message))
  made.on('exit', () => {
    workers.delete(number)
    native.refuseEngine(number, 'the worker has ended')
  })
}

module.exports = { worker }
