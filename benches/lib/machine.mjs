// What a measurement was taken on.

import { availableParallelism, cpus, release, totalmem, type } from 'node:os'

export function machine() {
  return {
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${type()} ${release()} ${process.arch}`,
    node: process.version,
    v8: process.versions.v8,
  }
}

/** @param {ReturnType<typeof machine>} facts */
export function describe(facts) {
  const gigabytes = Math.round(facts.memoryBytes / 2 ** 30)
  return `${facts.cpu}, ${facts.cores} cores, ${gigabytes} GiB, ${facts.system}, Node ${facts.node}`
}
