/*
 * A request router. It reads a table of routes from routes.txt, builds a tree
 * of it, then matches the requests on its standard input:
 *
 *     $ echo 'GET /articles/first-post' | router
 *     show_article slug=first-post
 *
 * The table is read and checked when wizer runs: the program that comes out
 * opens no file, and a mistake in routes.txt is an error of the build.
 */

#include "wizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 1024, MAX_PARAMS = 16 };

/* What a node adds to the path of its parent. */
enum kind { SEGMENT, PARAMETER, REST };

struct handler {
  char *method;
  char *name;
  struct handler *next;
};

struct node {
  enum kind kind;
  char *text; /* the segment, or the parameter's name */
  struct handler *handlers;
  struct node *children; /* segments before the parameter before the rest */
  struct node *next;
};

struct parameter {
  const char *name;
  const char *value;
  size_t length;
};

static struct node *routes;

static void fail(int line, const char *problem) {
  fprintf(stderr, "routes.txt:%d: %s\n", line, problem);
  exit(1);
}

static void *allocate(size_t size) {
  void *memory = calloc(1, size);
  if (memory == NULL) abort();
  return memory;
}

static char *copy(const char *text, size_t length) {
  char *result = allocate(length + 1);
  memcpy(result, text, length);
  return result;
}

/* The child for one segment of a pattern; made if it isn't there yet. */
static struct node *child_for(struct node *parent, const char *segment,
                              size_t length, int line) {
  enum kind kind = *segment == ':' ? PARAMETER : *segment == '*' ? REST : SEGMENT;
  if (kind != SEGMENT) segment++, length--;
  if (length == 0) fail(line, "a segment of the pattern is empty");

  struct node **place = &parent->children;
  for (; *place != NULL && (*place)->kind <= kind; place = &(*place)->next) {
    struct node *child = *place;
    int same = strlen(child->text) == length &&
               memcmp(child->text, segment, length) == 0;
    if (child->kind == kind && same) return child;
    if (child->kind == kind && kind != SEGMENT)
      fail(line, "another route has another name for this parameter");
  }

  struct node *child = allocate(sizeof *child);
  child->kind = kind;
  child->text = copy(segment, length);
  child->next = *place;
  *place = child;
  return child;
}

static void add_route(const char *method, const char *pattern, const char *name,
                      int line) {
  if (*pattern != '/') fail(line, "a pattern starts with `/`");

  struct node *node = routes;
  int parameters = 0;
  for (const char *rest = pattern + 1; *rest != '\0';) {
    if (node->kind == REST) fail(line, "nothing can follow a `*`");
    size_t length = strcspn(rest, "/");
    node = child_for(node, rest, length, line);
    if (node->kind != SEGMENT && ++parameters > MAX_PARAMS)
      fail(line, "too many parameters");
    rest += length;
    if (*rest == '/') rest++;
  }

  struct handler **place = &node->handlers;
  for (; *place != NULL; place = &(*place)->next)
    if (strcmp((*place)->method, method) == 0)
      fail(line, "this route exists already");
  struct handler *handler = allocate(sizeof *handler);
  handler->method = copy(method, strlen(method));
  handler->name = copy(name, strlen(name));
  *place = handler;
}

static void load_routes(void) {
  FILE *file = fopen("routes.txt", "r");
  if (file == NULL) {
    perror("routes.txt");
    exit(1);
  }
  routes = allocate(sizeof *routes);

  char text[MAX_LINE];
  for (int line = 1; fgets(text, sizeof text, file) != NULL; line++) {
    char *method = strtok(text, " \t\r\n");
    if (method == NULL || *method == '#') continue;
    char *pattern = strtok(NULL, " \t\r\n");
    char *name = strtok(NULL, " \t\r\n");
    if (name == NULL || strtok(NULL, " \t\r\n") != NULL)
      fail(line, "expected a method, a pattern and a handler");
    add_route(method, pattern, name, line);
  }
  fclose(file);
}

WIZER_COMMAND(load_routes);

/* The node for a path, trying the most exact child first. */
static const struct node *match(const struct node *node, const char *path,
                                struct parameter *parameters, int *count) {
  if (*path == '\0') return node->handlers != NULL ? node : NULL;

  size_t length = strcspn(path, "/");
  const char *after = path + length + (path[length] == '/');
  for (const struct node *child = node->children; child; child = child->next) {
    int before = *count;
    if (child->kind == SEGMENT) {
      if (strlen(child->text) != length || memcmp(child->text, path, length) != 0)
        continue;
    } else if (length > 0) {
      struct parameter *parameter = &parameters[(*count)++];
      parameter->name = child->text;
      parameter->value = path;
      parameter->length = child->kind == REST ? strlen(path) : length;
      if (child->kind == REST) return child;
    } else {
      continue;
    }
    const struct node *found = match(child, after, parameters, count);
    if (found != NULL) return found;
    *count = before;
  }
  return NULL;
}

static void answer(const char *method, const char *path) {
  struct parameter parameters[MAX_PARAMS];
  int count = 0;
  const struct node *node =
      *path == '/' ? match(routes, path + 1, parameters, &count) : NULL;
  if (node == NULL) {
    puts("404 not found");
    return;
  }

  const struct handler *handler = node->handlers;
  while (handler != NULL && strcmp(handler->method, method) != 0)
    handler = handler->next;
  if (handler == NULL) {
    puts("405 method not allowed");
    return;
  }

  fputs(handler->name, stdout);
  for (int i = 0; i < count; i++)
    printf(" %s=%.*s", parameters[i].name, (int)parameters[i].length,
           parameters[i].value);
  putchar('\n');
}

int main(void) {
  if (routes == NULL) load_routes(); /* nobody ran wizer on this module */

  char line[MAX_LINE];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *method = strtok(line, " \t\r\n");
    char *path = strtok(NULL, " \t\r\n");
    if (path == NULL) continue;
    path[strcspn(path, "?#")] = '\0';
    answer(method, path);
  }
  return 0;
}
