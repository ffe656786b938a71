// What the parts of the SDK have of each other.
#ifndef HOLM_TEXT_H
#define HOLM_TEXT_H

#include <stdarg.h>

const char *holm_vformat(const char *format, va_list arguments);

#endif
