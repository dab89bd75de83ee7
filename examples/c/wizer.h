/*
 * wizer.h: prepare a C or C++ program for wizer.
 *
 * Part of @jakechampion/wizer, Apache-2.0 WITH LLVM-exception. Copy this one
 * file into your project; it needs nothing else. (Commands need clang 15 and the
 * wasi-libc of its time: wasi-sdk 17 or later, or Zig.)
 *
 * wizer runs a function of your program once, at build time, and writes a new
 * module whose memory already holds what the function left behind. You write
 * that function, and say with one of three macros what kind of module it is in:
 *
 *   WIZER_COMMAND(init)   a program: it has a main().
 *   WIZER_REACTOR(init)   a library linked with -mexec-model=reactor: it has
 *                         exports instead of a main(), and an `_initialize`.
 *   WIZER_BARE(init)      a library linked with -nostartfiles -Wl,--no-entry:
 *                         no libc start-up code at all.
 *
 * `init` is a function of type void(void). Write the macro once per program, at
 * file scope, in any one source file, after the declaration of `init`. If your
 * global constructors do all the work already (C++), give an empty function.
 *
 *
 * The one hard problem: constructors
 *
 * C++ global objects, and C functions with __attribute__((constructor)), are
 * built before main() by the function `__wasm_call_ctors`, which the linker
 * writes. They have to run before `init`, so that it finds the globals alive,
 * and must not run again afterwards, for they would undo what `init` did. Who
 * calls them is all that differs between the three kinds of module:
 *
 *   command   The export `_start` calls them, then main(), then the
 *             destructors. wizer doesn't call `_start`, so `wizer.initialize`
 *             has to call the constructors; and as `_start` would call them
 *             again in the new module, that module needs another way in:
 *             `wizer.resume`, which calls main() and the destructors only. The
 *             rename puts it where every WASI host looks:
 *
 *               npx wizer in.wasm -o out.wasm --allow-wasi -r _start=wizer.resume
 *
 *             Arguments, environment and files are asked from the host that
 *             runs main(), not from the one that ran `init`.
 *
 *   reactor   `_initialize` calls them. wizer calls it before
 *             `wizer.initialize` and leaves it out of the new module:
 *
 *               npx wizer in.wasm -o out.wasm --allow-wasi
 *
 *   bare      Nobody calls them, so `wizer.initialize` does:
 *
 *               npx wizer in.wasm -o out.wasm
 *
 *             (Where nothing in a program mentions `__wasm_call_ctors`, the
 *             linker makes *every* export call the constructors first. Naming
 *             it here, once, turns that off.)
 *
 *
 * What the macros look after besides
 *
 *   - Output that `init` printed is flushed. Left in a buffer, it would be
 *     printed again by each start of the new module.
 *   - The environment and the list of open directories, which libc keeps, are
 *     forgotten after `init`: both belong to the machine that ran wizer.
 *     (wasi-libc of 2023 and later; older ones keep the directories.)
 *   - A new command that was made without the rename stops in `_start` with a
 *     message, rather than running the constructors a second time.
 *
 * The first two are of no use to WIZER_BARE, and not done there.
 *
 * What remains yours
 *
 *   - Close the files that `init` opens. A descriptor means nothing later.
 *   - If `init` reads stdin, read it to its end, then call clearerr(stdin):
 *     stdio remembers the end of the file, and main() would find it too.
 *   - In a reactor, ask for the environment with getenv(). The variable
 *     `environ` itself is only filled where start-up code runs.
 *   - Random seeds and the time of day become constants when `init` takes them.
 *   - A command that should also work when nobody ran wizer on it asks in
 *     main() whether `init` ran, and calls it if not; `router.c` beside this
 *     file shows how.
 *
 *
 * Outside WebAssembly the macros export nothing, so the same sources build as a
 * native program.
 */

#ifndef WIZER_H
#define WIZER_H

#ifdef __cplusplus
#define WIZER_C_ extern "C"
#else
#define WIZER_C_ extern
#endif

/* Declares; each macro ends with it, so that the semicolon is yours to write. */
#define WIZER_END_ WIZER_C_ void wizer_initialize_(void)

#ifndef __wasm__

#define WIZER_BARE(init)                                                       \
  WIZER_END_;                                                                  \
  WIZER_C_ void wizer_initialize_(void) { init(); }                            \
  WIZER_END_
#define WIZER_REACTOR(init) WIZER_BARE(init)
#define WIZER_COMMAND(init) WIZER_BARE(init)

#else

#define WIZER_EXPORT_(name) WIZER_C_ __attribute__((export_name(name)))

/* Written by the linker: runs all constructors, each time it is called. */
WIZER_C_ void __wasm_call_ctors(void);

#define WIZER_REACTOR(init)                                                    \
  WIZER_END_;                                                                  \
  WIZER_EXPORT_("wizer.initialize") void wizer_initialize_(void) {             \
    init();                                                                    \
    wizer_forget_host_();                                                      \
  }                                                                            \
  WIZER_END_

#define WIZER_BARE(init)                                                       \
  WIZER_END_;                                                                  \
  WIZER_EXPORT_("wizer.initialize") void wizer_initialize_(void) {             \
    __wasm_call_ctors();                                                       \
    init();                                                                    \
  }                                                                            \
  WIZER_END_

/*
 * Before clang 15 and the wasi-libc of its time, `_start` relied on the linker
 * to run the constructors, which it doesn't once anybody else mentions them.
 */
#if defined(__clang_major__) && __clang_major__ < 15
#define WIZER_COMMAND(init)                                                    \
  _Pragma("GCC error \"WIZER_COMMAND needs clang 15, as in wasi-sdk 17\"")
#else

/*
 * The priority of the check below is the lowest number that programs may use,
 * so that it comes before every constructor but libc's own. `volatile`, for
 * clang runs constructors at compile time where it can, and would find a zero.
 */
#define WIZER_COMMAND(init)                                                    \
  WIZER_END_;                                                                  \
  static volatile int wizer_initialized_;                                      \
                                                                               \
  __attribute__((constructor(101))) static void wizer_check_start_(void) {     \
    if (wizer_initialized_) wizer_constructed_twice_();                        \
  }                                                                            \
                                                                               \
  WIZER_EXPORT_("wizer.initialize") void wizer_initialize_(void) {             \
    __wasm_call_ctors();                                                       \
    init();                                                                    \
    wizer_forget_host_();                                                      \
    wizer_initialized_ = 1;                                                    \
  }                                                                            \
                                                                               \
  WIZER_EXPORT_("wizer.resume") void wizer_resume_(void) {                     \
    wizer_run_main_();                                                         \
  }                                                                            \
  WIZER_END_

#endif

#ifdef __wasi__

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * What the start-up code of a command calls after the constructors. The first
 * is main(), whether it takes arguments or not: clang gives this second name to
 * a main(void), and libc has one for the other kind. But clang would not give a
 * name that the same file declares; \01 makes it another name to clang, and the
 * same to the linker.
 */
WIZER_C_ int wizer_main_(void) __asm__("\01__main_void");
WIZER_C_ void __wasm_call_dtors(void);

/*
 * Part of wasi-libc, but linked only into programs that use the environment or
 * open files, and absent from old releases. A weak symbol is null then, and
 * doesn't pull anything in by itself.
 */
WIZER_C_ __attribute__((weak)) void __wasilibc_deinitialize_environ(void);
WIZER_C_ __attribute__((weak)) void
__wasilibc_maybe_reinitialize_environ_eagerly(void);
WIZER_C_ __attribute__((weak)) void __wasilibc_reset_preopens(void);

__attribute__((unused)) static void wizer_forget_host_(void) {
  fflush(NULL);
  if (__wasilibc_deinitialize_environ) __wasilibc_deinitialize_environ();
  if (__wasilibc_reset_preopens) __wasilibc_reset_preopens();
}

/* As the start-up code does it: a status of 0 is a plain return. */
__attribute__((unused)) static void wizer_run_main_(void) {
  int status;
  if (__wasilibc_maybe_reinitialize_environ_eagerly)
    __wasilibc_maybe_reinitialize_environ_eagerly();
  status = wizer_main_();
  __wasm_call_dtors();
  if (status != 0) _Exit(status);
}

__attribute__((unused)) static void wizer_constructed_twice_(void) {
  static const char message[] =
      "wizer.h: this module is initialized, and `_start` would initialize it "
      "again.\nRun wizer with `-r _start=wizer.resume`.\n";
  if (write(STDERR_FILENO, message, sizeof message - 1) < 0) {
    /* The trap says it too. */
  }
  __builtin_trap();
}

#else

/* Without WASI, no libc keeps anything about the host. */
__attribute__((unused)) static void wizer_forget_host_(void) {}

#endif /* __wasi__ */

#endif /* __wasm__ */

#endif /* WIZER_H */
