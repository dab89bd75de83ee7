// As much of Fastly's host as one request needs: it hands out a GET for
// https://example.com/, and keeps the response that comes back. Every other
// call gets the answer "unsupported".
//
// The functions and their parameters are in `fastly.h` of the repository
// fastly/js-compute-runtime.

const OK = 0
const UNSUPPORTED = 5

export const METHOD = 'GET'
export const URI = 'https://example.com/'

/**
 * @param {() => WebAssembly.Memory} memory  known only once the module is instantiated
 */
export function fastlyHost(memory) {
  const bodies = new Map()
  const responses = new Map()
  let handles = 100
  /** @type {{ status: number, headers: [string, string][], body: string } | undefined} */
  let sent
  const unsupported = new Set()

  const view = () => new DataView(memory().buffer)
  const bytes = (pointer, length) => Buffer.from(memory().buffer, pointer, length)
  const text = (pointer, length) => bytes(pointer, length).toString()
  const writeU32 = (pointer, value) => view().setUint32(pointer, value, true)
  const writeText = (value, pointer, room, written) => {
    const source = Buffer.from(value)
    if (source.length > room) throw new Error(`${source.length} bytes do not fit into ${room}`)
    source.copy(bytes(pointer, room))
    writeU32(written, source.length)
    return OK
  }
  const newHandle = (map, value, out) => {
    map.set(++handles, value)
    writeU32(out, handles)
    return OK
  }

  const functions = {
    fastly_http_req: {
      body_downstream_get(requestOut, bodyOut) {
        writeU32(requestOut, ++handles)
        newHandle(bodies, [], bodyOut)
        return OK
      },
      method_get: (_request, pointer, room, written) => writeText(METHOD, pointer, room, written),
      uri_get: (_request, pointer, room, written) => writeText(URI, pointer, room, written),
    },
    fastly_http_body: {
      new: (out) => newHandle(bodies, [], out),
      write(body, pointer, length, _end, written) {
        bodies.get(body).push(Buffer.from(bytes(pointer, length)))
        writeU32(written, length)
        return OK
      },
      close: () => OK,
    },
    fastly_http_resp: {
      new: (out) => newHandle(responses, { status: 200, headers: [] }, out),
      status_set(response, status) {
        responses.get(response).status = status
        return OK
      },
      status_get(response, out) {
        view().setUint16(out, responses.get(response).status, true)
        return OK
      },
      header_insert(response, name, nameLength, value, valueLength) {
        responses.get(response).headers.push([text(name, nameLength), text(value, valueLength)])
        return OK
      },
      send_downstream(response, body) {
        if (sent) throw new Error('a second response was sent')
        sent = { ...responses.get(response), body: Buffer.concat(bodies.get(body)).toString() }
        return OK
      },
    },
  }

  return {
    /** The function for an import of one of Fastly's modules. */
    import(module, name) {
      return (
        functions[module]?.[name] ??
        (() => {
          unsupported.add(`${module}.${name}`)
          return UNSUPPORTED
        })
      )
    },
    get response() {
      return sent
    },
    get unsupported() {
      return [...unsupported]
    },
  }
}
