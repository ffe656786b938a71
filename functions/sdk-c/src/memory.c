// Memory, and the few functions of a C library that compilers expect to be there.
//
// An instance lives for one event: memory is given out from one end and never taken back. What an event may take is a
// limit of the manifest; beyond it the instance traps, and the event is settled as one that failed.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 65536
#define ALIGNMENT 16

// Where the linker has put the last of the data.
extern unsigned char __heap_base;

static uintptr_t next;
static uintptr_t end;
// The last piece given out, which alone can grow where it is.
static uintptr_t last;

static uintptr_t take(size_t size) {
    if (next == 0) {
        next = ((uintptr_t)&__heap_base + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
        end = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
    }
    if (size > UINTPTR_MAX - ALIGNMENT - next) abort();
    uintptr_t after = (next + size + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    if (after > end) {
        size_t pages = (after - end + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) abort();
        end += pages * PAGE;
    }
    last = next;
    next = after;
    return last;
}

void *malloc(size_t size) {
    return (void *)take(size);
}

void *calloc(size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) abort();
    // Fresh pages are zero, but what `realloc` has made smaller is not fresh.
    return memset(malloc(count * size), 0, count * size);
}

void *realloc(void *piece, size_t size) {
    if (piece == NULL) return malloc(size);
    if ((uintptr_t)piece == last) {
        next = last;
        return (void *)take(size);
    }
    // How much it had is not known: what lies before the end can be read, and more than it had is not looked at again.
    size_t most = next - (uintptr_t)piece;
    void *moved = malloc(size);
    return memcpy(moved, piece, size < most ? size : most);
}

void free(void *piece) {
    (void)piece;
}

_Noreturn void abort(void) {
    __builtin_trap();
}

// With bulk memory these are one instruction each, and not calls of themselves.
void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    return __builtin_memcpy(to, from, length);
}

void *memmove(void *to, const void *from, size_t length) {
    return __builtin_memmove(to, from, length);
}

void *memset(void *to, int value, size_t length) {
    return __builtin_memset(to, value, length);
}

int memcmp(const void *a, const void *b, size_t length) {
    const unsigned char *left = a, *right = b;
    for (size_t i = 0; i < length; i++) {
        if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *text) {
    const char *at = text;
    while (*at != '\0') at++;
    return (size_t)(at - text);
}

int strcmp(const char *a, const char *b) {
    while (*a != '\0' && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

char *strchr(const char *text, int wanted) {
    for (;; text++) {
        if (*text == (char)wanted) return (char *)text;
        if (*text == '\0') return NULL;
    }
}
