// What there is of a C library: see src/memory.c.
#ifndef HOLM_STDLIB_H
#define HOLM_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *piece, size_t size);
void free(void *piece);
_Noreturn void abort(void);

#endif
