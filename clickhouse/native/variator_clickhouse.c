/* Hosts libchdb's ClickHouse in a process of its own: an HTTP server on loopback until told to stop.
 * Started by embedded-server.ts as: variator-clickhouse LIBCHDB.so [clickhouse-local arguments ending in --query=...]
 *
 * It leaves at once on SIGTERM, SIGINT, SIGHUP, or when its standard input ends, which is how it dies with its parent.
 * Leaving at once is safe: whatever ClickHouse acknowledged is already with the kernel, and the same insert sent again
 * under its token is stored once. It refuses to end well by itself: a return of the engine is exit code 1.
 *
 * Why C and not a foreign function call from Node: ClickHouse checks that it runs on its thread's own stack, and
 * libraries that switch stacks fail with "Frame address is greater than stack begin address". */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *(*run_fn)(int, char **);
typedef const char *(*error_fn)(void *);

static int parent_fd;
static sigset_t stop_signals;

static void leave(const char *why) {
  fprintf(stderr, "variator-clickhouse: %s, stopping\n", why);
  fflush(NULL);
  _Exit(0);
}

static void *watch_parent(void *unused) {
  char ignored[256];
  (void)unused;
  for (;;) {
    ssize_t count = read(parent_fd, ignored, sizeof ignored);
    if (count == 0 || (count < 0 && errno != EINTR)) break;
  }
  leave("standard input ended");
  return NULL;
}

static void *watch_signals(void *unused) {
  int which = 0;
  (void)unused;
  while (sigwait(&stop_signals, &which) != 0) continue;
  leave(strsignal(which));
  return NULL;
}

static int fail(const char *what, const char *why) {
  fprintf(stderr, "variator-clickhouse: %s: %s\n", what, why);
  return 3;
}

int main(int argc, char **argv) {
  pthread_t thread;
  if (argc < 3) {
    fprintf(stderr, "usage: %s LIBCHDB.so ARGUMENTS...\n", argv[0]);
    return 2;
  }
  /* Blocked before the library starts threads, so that all of them inherit it and sigwait gets every one. */
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  sigaddset(&stop_signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &stop_signals, NULL);
  signal(SIGPIPE, SIG_IGN);

  /* ClickHouse gets an empty standard input of its own; ours is the line to the parent. */
  parent_fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
  int empty_fd = open("/dev/null", O_RDONLY);
  if (parent_fd < 0 || empty_fd < 0 || dup2(empty_fd, 0) < 0) return fail("standard input", strerror(errno));
  close(empty_fd);
  if (pthread_create(&thread, NULL, watch_parent, NULL) != 0) return fail("thread", "cannot start");
  if (pthread_create(&thread, NULL, watch_signals, NULL) != 0) return fail("thread", "cannot start");

  void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
  if (library == NULL) return fail("cannot load the library", dlerror());
  run_fn run = (run_fn)dlsym(library, "chdb_query_cmdline");
  error_fn error_of = (error_fn)dlsym(library, "chdb_result_error");
  if (run == NULL || error_of == NULL) return fail(argv[1], "lacks chdb_query_cmdline");

  argv[1] = "clickhouse";
  void *result = run(argc - 1, argv + 1);
  const char *why = result == NULL ? "it gave no result (see the lines above)" : error_of(result);
  fprintf(stderr, "variator-clickhouse: %s\n", why == NULL ? "the engine ended before a stop was asked" : why);
  fflush(NULL);
  _Exit(1);
}
