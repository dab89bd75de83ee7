// Numbers and tables for people. The tables are Markdown, so that they can be
// pasted into a document.

import { markdownTable } from 'markdown-table'

/**
 * @param {string[]} header
 * @param {string[][]} rows  the first column is a name, the others are numbers
 */
export function table(header, rows) {
  return markdownTable([header, ...rows], { align: header.map((_, column) => (column ? 'r' : 'l')) })
}

/** @param {number} value milliseconds; three significant digits, in whole ms from 100 on */
export function ms(value) {
  return `${value >= 100 ? Math.round(value) : value.toPrecision(3)} ms`
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

/** @param {number} value */
export function times(value) {
  return `${value >= 100 ? Math.round(value) : value.toPrecision(3)} ×`
}

/** @param {number} value a count, with thin groups of three */
export function count(value) {
  return value.toLocaleString('en-US')
}
