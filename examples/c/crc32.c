/*
 * CRC-32, eight bytes at a time, as a library with no libc and no imports: for
 * a browser, or any host that only wants the function.
 *
 * The eight tables of 256 entries are made when wizer runs. In the source they
 * are one short loop; in the module they are ready.
 */

#include "wizer.h"

#include <stddef.h>
#include <stdint.h>

/* Bits in the order of zip, gzip and PNG. */
#define POLYNOMIAL 0xedb88320u

static uint32_t tables[8][256];
static uint8_t buffer[65536];

static void make_tables(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++)
      crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
    tables[0][byte] = crc;
  }
  for (int table = 1; table < 8; table++)
    for (int byte = 0; byte < 256; byte++) {
      uint32_t crc = tables[table - 1][byte];
      tables[table][byte] = crc >> 8 ^ tables[0][crc & 255];
    }
}

WIZER_BARE(make_tables);

#define EXPORT(name) __attribute__((export_name(name)))

/* Where the host writes its bytes, 65,536 at most at a time. */
EXPORT("buffer") uint8_t *export_buffer(void) { return buffer; }

/* The checksum of `length` bytes; `crc` is that of the bytes before, or 0. */
EXPORT("crc32") uint32_t export_crc32(uint32_t crc, size_t length) {
  const uint8_t *at = buffer;
  crc = ~crc;
  for (; length >= 8; length -= 8, at += 8) {
    crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
           (uint32_t)at[3] << 24;
    crc = tables[7][crc & 255] ^ tables[6][crc >> 8 & 255] ^
          tables[5][crc >> 16 & 255] ^ tables[4][crc >> 24] ^
          tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^
          tables[0][at[7]];
  }
  while (length-- > 0) crc = crc >> 8 ^ tables[0][(crc ^ *at++) & 255];
  return ~crc;
}
