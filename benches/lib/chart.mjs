// The results as a picture: how many times as fast, on a logarithmic scale, with the goal of each row.

const LABELS = 380
const BARS = 420
const ROW = 30
const TOP = 46

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)

/** @returns {string} an SVG */
export function chart({ rows, machine, programs }) {
  const bars = rows.flatMap(({ name, time, memory }) => [
    { name, value: time.ofMedians, goal: time.goal },
    // Where no more is wanted than not to take more, it is in the table only.
    ...(memory?.goal > 1 ? [{ name: `${name}: memory`, value: memory.ratio, goal: memory.goal, memory: true }] : []),
  ])
  const most = Math.max(40, ...bars.map(({ value }) => value))
  const x = (value) => Math.round(LABELS + (BARS * Math.log(Math.max(value, 1))) / Math.log(most))
  const foot = TOP + bars.length * ROW
  const besides = rows.filter(({ programs: [, their] }) => their.label !== programs.peer)
  const height = foot + 46 + besides.length * 14
  const width = LABELS + BARS + 80
  const ticks = [1, 2, 3, 5, 10, 20, 30].filter((tick) => tick < most)
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13">`,
    `<title>${escape(programs.peer)} divided by ${escape(programs.ours)}</title>`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="12" y="24" font-size="15" font-weight="600">How many times as much ${escape(programs.peer)} takes</text>`,
    ...ticks.map(
      (tick) =>
        `<line x1="${x(tick)}" x2="${x(tick)}" y1="${TOP - 6}" y2="${foot + 6}" stroke="#ddd"/>` +
        `<text x="${x(tick)}" y="${foot + 20}" text-anchor="middle" fill="#666">${tick} ×</text>`,
    ),
    ...bars.flatMap(({ name, value, goal, memory }, index) => {
      const y = TOP + index * ROW
      return [
        `<text x="${LABELS - 10}" y="${y + 16}" text-anchor="end">${escape(name)}</text>`,
        `<rect x="${LABELS}" y="${y + 3}" width="${Math.max(1, x(value) - LABELS)}" height="18" fill="${memory ? '#7fb069' : '#3a6ea5'}"/>`,
        `<line x1="${x(goal)}" x2="${x(goal)}" y1="${y}" y2="${y + 24}" stroke="#c0392b" stroke-width="2"/>`,
        `<text x="${Math.max(x(value), x(goal)) + 8}" y="${y + 16}">${value.toFixed(1)} ×</text>`,
      ]
    }),
    ...besides.map(
      ({ name, programs: [, their] }, index) =>
        `<text x="12" y="${foot + 38 + index * 14}" fill="#666" font-size="11">${escape(name)}: beside ${escape(their.label)}</text>`,
    ),
    `<text x="12" y="${height - 8}" fill="#666" font-size="11">blue: time, green: peak memory, red: the goal; ${escape(machine.cpu)}, ${machine.cores} cores, Node ${machine.node}</text>`,
    '</svg>',
  ]
  return `${parts.join('\n')}\n`
}
