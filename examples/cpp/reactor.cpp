// The guesser as a library, for a host that calls it as often as it likes.
//
// `_initialize`, which the reactor's start-up code exports, runs the global
// constructors; the initialization function finds them done, and warms up.

#include "../c/wizer.h"
#include "language.hpp"

#include <cstdlib>

// The host writes its text here.
static char buffer[4096];

static void warm_up() {
  // A failed self-test fails the build that runs wizer.
  const Language *language = Language::guess("a test of all that was learned");
  if (language == nullptr || language->name() != "English") std::abort();
}

WIZER_REACTOR(warm_up);

#define EXPORT(name) extern "C" __attribute__((export_name(name)))

EXPORT("buffer") char *export_buffer() { return buffer; }
EXPORT("buffer_size") std::size_t export_buffer_size() { return sizeof buffer; }

// The name of the language of the first `length` bytes of the buffer, as a
// C string.
EXPORT("guess") const char *export_guess(std::size_t length) {
  if (length > sizeof buffer) return "?";
  const Language *language = Language::guess({buffer, length});
  return language ? language->name().c_str() : "?";
}

EXPORT("constructed") int export_constructed() { return Language::constructed(); }
