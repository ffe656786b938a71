// What there is of a C library: see src/memory.c.
#ifndef HOLM_STRING_H
#define HOLM_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
char *strchr(const char *text, int wanted);

#endif
