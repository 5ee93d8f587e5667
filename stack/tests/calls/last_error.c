// A library function of Windows that calls back, and then fails with an error of its own.
#include <stddef.h>
#include <windows.h>

size_t calls_back(size_t (*back)(void *), void *argument, size_t result, size_t error) {
    back(argument);
    SetLastError((DWORD)error);
    return result;
}
