// An npm registry of a few packages on this machine, in a thread of its own: the tests wait for the programs that ask it.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

/**
 * Serves packages, each given as `{ manifest, file }`: its package.json, and its tarball where anybody will want that.
 * Gives back its `url`, and `close()`.
 */
export async function serve(packages) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: packages })
  const [url] = await once(worker, 'message')
  return { url, close: () => worker.terminate() }
}

function document({ manifest, file }, url) {
  const hash = (algorithm, encoding) => createHash(algorithm).update(readFileSync(file)).digest(encoding)
  const { name, version } = manifest
  const dist = {
    tarball: `${url}${name}/-/${basename(file ?? 'none.tgz')}`,
    ...(file && { shasum: hash('sha1', 'hex'), integrity: `sha512-${hash('sha512', 'base64')}` }),
  }
  // Package managers wait some time before they trust what is new.
  const time = { [version]: '2020-01-01T00:00:00.000Z' }
  return { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } }, time }
}

if (!isMainThread && workerData) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url).slice(1)
    const found = workerData.find(({ manifest, file }) => manifest.name === path || (file && path === `${manifest.name}/-/${basename(file)}`))
    if (!found) response.writeHead(404).end('{}')
    else if (path.endsWith('.tgz')) response.end(readFileSync(found.file))
    else response.setHeader('content-type', 'application/json').end(JSON.stringify(document(found, url)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${server.address().port}/`
  parentPort.postMessage(url)
}
