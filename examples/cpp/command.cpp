// The guesser as a program: one text a line on standard input, one guess a line
// on standard output.
//
// Everything that is worth doing ahead, the global constructors do, so there is
// nothing left for the initialization function.

#include "../c/wizer.h"
#include "language.hpp"

#include <cstdio>
#include <cstring>

static void nothing_more_to_do() {}

WIZER_COMMAND(nothing_more_to_do);

// A global object with a destructor: that runs once too, after main().
static struct Summary {
  int texts = 0;
  ~Summary() {
    std::fprintf(stderr, "texts: %d, languages: %d\n", texts,
                 Language::constructed());
  }
} summary;

int main() {
  char line[1024];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    line[std::strcspn(line, "\r\n")] = '\0';
    const Language *language = Language::guess(line);
    std::printf("%s: %s\n", language ? language->name().c_str() : "?", line);
    summary.texts++;
  }
}
